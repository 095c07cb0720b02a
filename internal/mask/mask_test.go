package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// folded breaks a text into lines, as fold and base64 do.
func folded(s string, width int, end string) string {
	var out strings.Builder
	for i := 0; i < len(s); i += width {
		out.WriteString(s[i:min(i+width, len(s))])
		out.WriteString(end)
	}
	return out.String()
}

// escaped writes every byte with a format.
func escaped(s, format string) string {
	var out strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&out, format, s[i])
	}
	return out.String()
}

// runes writes every character of the basic plane as JSON may.
func runes(s string) string {
	var out strings.Builder
	for _, r := range s {
		fmt.Fprintf(&out, `\u%04X`, r)
	}
	return out.String()
}

func jsonOf(s string) string {
	data, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return strings.Trim(string(data), `"`)
}

// forms are those in which a step's tools show a value, by the tool.
func forms(v string) map[string]string {
	all := map[string]string{
		"as it is":          v,
		"fold":              folded(v, 3, "\n"),
		"fold, indented":    folded(v, 5, "\r\n\t  "),
		"xxd -p":            hex.EncodeToString([]byte(v)),
		"xxd -p, wrapped":   folded(hex.EncodeToString([]byte(v)), 7, "\n"),
		"hex, upper":        strings.ToUpper(hex.EncodeToString([]byte(v))),
		"od -An -tx1":       escaped(v, " %02x"),
		"openssl":           escaped(v, "%02X:"),
		"printf, hex":       escaped(v, `\x%02x`),
		"printf, octal":     escaped(v, `\%03o`),
		"JSON":              jsonOf(v),
		"JSON, every byte":  runes(v),
		"JSON, slashes":     strings.ReplaceAll(jsonOf(v), "/", `\/`),
		"Go":                strconv.Quote(v),
		"query":             url.QueryEscape(v),
		"query, lower":      strings.ToLower(url.QueryEscape(strings.ToLower(v))),
		"path":              url.PathEscape(v),
		"query, every byte": escaped(v, "%%%02x"),
		"shell":             "'" + strings.ReplaceAll(v, "'", `'\''`) + "'",
		"shell, double":     `"` + strings.ReplaceAll(v, `"`, `\"`) + `"`,
	}
	if strings.ToLower(v) != v {
		delete(all, "query, lower")
	}
	for name, e := range map[string]*base64.Encoding{"std": base64.StdEncoding, "raw": base64.RawStdEncoding, "URL": base64.URLEncoding, "raw URL": base64.RawURLEncoding} {
		for i, before := range []string{"", "u", "us", "user:"} {
			for j, after := range []string{"", "\n", "@host"} {
				s := e.EncodeToString([]byte(before + v + after))
				name := fmt.Sprintf("base64 %s %d %d", name, i, j)
				all[name] = s
				all[name+", wrapped"] = folded(s, 4, "\n")
				all[name+", in JSON"] = strings.ReplaceAll(jsonOf(folded(s, 76, "\n")), "/", `\/`)
				all[name+", in a URL"] = url.QueryEscape(s)
			}
		}
	}
	return all
}

// shows tells whether whoever reads a text finds a value in it: by looking, and by undoing
// what a person would try.
func shows(text, v string) string {
	joined := strings.NewReplacer("\n", "", "\r", "", "\t", "", " ", "").Replace(text)
	bare := strings.ReplaceAll(v, " ", "")
	if strings.Contains(joined, bare) {
		return "as it is"
	}
	unquoted := strings.NewReplacer(`'`, "", `"`, "", `\`, "")
	if q := unquoted.Replace(bare); len(q) >= Least && strings.Contains(unquoted.Replace(joined), q) {
		return "quoted"
	}
	if h := hex.EncodeToString([]byte(v)); strings.Contains(strings.ToLower(strings.NewReplacer(":", "", `\x`, "").Replace(joined)), h) {
		return "in hex"
	}
	for _, undo := range []func(string) string{
		func(s string) string { return s },
		func(s string) string { return strings.NewReplacer(`\n`, "", `\/`, "/").Replace(s) },
		func(s string) string { u, err := url.QueryUnescape(s); _ = err; return u },
	} {
		s := undo(joined)
		if strings.Contains(s, bare) && strings.ContainsAny(joined, "%\\") {
			return "escaped"
		}
		s = strings.NewReplacer("-", "+", "_", "/").Replace(s)
		for _, form := range base64Forms(v) {
			if strings.Contains(s, form) {
				return "in base64"
			}
		}
	}
	return ""
}

func values() []string {
	return []string{
		"hunter2!", "s3cr3t/with+all=", `it's "quoted" \ and & <more>`, "pässwörd ünd", "0123456789abcdef0123456789ABCDEF",
		"ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789", "abcd", strings.Repeat("long secret ", 60),
	}
}

// TestAttackSecretsInOtherForms is a step whose tools print its secrets in every form
// that they use: none of them is in the log.
func TestAttackSecretsInOtherForms(t *testing.T) {
	for _, v := range values() {
		for name, form := range forms(v) {
			m := New([]string{v, "another one"})
			text := "begin " + form + " end\n"
			got := m.String(text)
			if !strings.HasPrefix(got, "begin ") || !strings.HasSuffix(got, " end\n") || !strings.Contains(got, Text) {
				t.Errorf("%q %s: %q became %q", v, name, text, got)
			}
			if how := shows(got, v); how != "" && len(v) < piece {
				t.Errorf("%q %s: %q shows it %s", v, name, got, how)
			}
			var out bytes.Buffer
			x := m.Stream()
			for i := range len(text) {
				out.Write(x.Write([]byte{text[i]}))
			}
			if out.Write(x.End()); out.String() != got {
				t.Errorf("%q %s: byte by byte it became %q, not %q", v, name, out.String(), got)
			}
		}
	}
}

// TestMaskLines: a value of several lines is hidden line by line, also where it is one.
func TestMaskLines(t *testing.T) {
	key := "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHVyYiBpcyBub3QgYSByZWFsIGtleSBhdCBh\nbGwgSSBzYXkK\n-----END PRIVATE KEY-----\n"
	m := New([]string{key})
	for name, text := range map[string]string{
		"cat": key, "grep": "x: MC4CAQAwBQYDK2VwBCIEIHVyYiBpcyBub3QgYSByZWFsIGtleSBhdCBh", "JSON": jsonOf(key),
		"indented": strings.ReplaceAll(key, "\n", "\n    "), "base64": folded(base64.StdEncoding.EncodeToString([]byte(key)), 76, "\n"),
		"joined": strings.ReplaceAll(key, "\n", ""), "env": "KEY=" + strings.ReplaceAll(key, "\n", `\n`),
	} {
		got := m.String(text)
		for _, line := range strings.Split(key, "\n") {
			if len(line) >= Least && shows(got, line) != "" {
				t.Errorf("%s: %q shows %q", name, got, line)
			}
		}
	}
}

func TestMaskLeaves(t *testing.T) {
	m := New([]string{"hunter2!", "x", "", "tok"})
	for text, want := range map[string]string{
		"":                              "",
		"x tok hunter2 hunter2? hunt\n": "x tok hunter2 hunter2? hunt\n",
		"hunter2!hunter2!":              "[secret][secret]",
		"a hunter2!\nb":                 "a [secret]\nb",
		"%zz%4 \\u12 \\q 100%":          "%zz%4 \\u12 \\q 100%",
		"hunt" + strings.Repeat("\n", gap+1) + "er2!": "hunt" + strings.Repeat("\n", gap+1) + "er2!",
	} {
		if got := m.String(text); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
	if got := New([]string{"aaaa"}).String(strings.Repeat("a", 1000)); got != Text {
		t.Errorf("matches that overlap became %q", got)
	}
	if got := New(nil).String("anything"); got != "anything" {
		t.Errorf("without secrets: %q", got)
	}
}

// TestMaskHoldsLittle: what is held back is bounded, whatever is written.
func TestMaskHoldsLittle(t *testing.T) {
	x := New([]string{"aaaab", strings.Repeat("a", 100) + "c"}).Stream()
	for range 1000 {
		x.Write(bytes.Repeat([]byte("a\n"), 500))
		if len(x.held) > 100*(gap+6) || len(x.spans) > 1000 {
			t.Fatalf("%d bytes and %d matches are held", len(x.held), len(x.spans))
		}
	}
}

// FuzzMasker: wherever a stream is cut the same comes out, and no form of the secret does.
func FuzzMasker(f *testing.F) {
	for i, v := range values() {
		f.Add(v, "prefix ", "suffix\n", uint64(i))
	}
	f.Add("secr", "prefix ", "suffix\n", uint64(0)) // a part of Text
	f.Fuzz(func(t *testing.T, v, before, after string, seed uint64) {
		if len(strings.TrimSpace(v)) < Least || len(v) > 100 || strings.ContainsAny(v, "\r\n\x00") || strings.TrimSpace(v) != v {
			return
		}
		dice := rand.New(rand.NewPCG(seed, 1))
		m := New([]string{v})
		all := forms(v)
		for _, name := range []string{"as it is", "fold", "xxd -p", "JSON", "query", "base64 std 1 2, wrapped", "base64 raw URL 2 0"} {
			text := before + all[name] + after
			got := m.String(text)
			var out strings.Builder
			x := m.Stream()
			for rest := []byte(text); len(rest) > 0; {
				n := 1 + dice.IntN(len(rest))
				out.Write(x.Write(rest[:n]))
				rest = rest[n:]
			}
			if out.Write(x.End()); out.String() != got {
				t.Fatalf("%s of %q cut somewhere became %q, not %q", name, v, out.String(), got)
			}
			if !strings.Contains(got, Text) && !strings.Contains(name, "query") && !strings.Contains(name, "JSON") {
				t.Fatalf("%s of %q is not masked: %q", name, v, got)
			}
			// A value may be a part of [Text] itself ("secr"); v has no NUL.
			if rest := strings.ReplaceAll(got, Text, "\x00"); strings.Contains(rest, v) {
				t.Fatalf("%s of %q shows it: %q", name, v, got)
			}
		}
	})
}

func BenchmarkMask(b *testing.B) {
	line := []byte("gcc -O2 -Wall -c -o build/obj/main.o src/main.c -I/usr/include/openssl -DVERSION=\"1.2.3\"\n")
	data := bytes.Repeat(line, 32<<10/len(line))
	m := New([]string{"ghp_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789", "hunter2!", "another-secret-of-some-length"})
	x := m.Stream()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		x.Write(data)
	}
}
