package compare

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trysail/blueprint"
)

// TestRule holds the rule of the package comment: a is what the captured
// machine made, b what it made again, c what the rebuilt machine made.
func TestRule(t *testing.T) {
	u32 := func(sec int64) string {
		return string(binary.LittleEndian.AppendUint32([]byte("\x00\x01\x02code\x00\x80"), uint32(sec))) + "\x00\xffmore"
	}
	random := func(n int) string {
		p := make([]byte, n)
		_, _ = rand.Read(p)
		return string(p)
	}
	tarOf := func(list ...entry) string { return string(makeTar(t, list...)) }
	for _, c := range []struct {
		name    string
		a, b, c string
		beyond  string // a part of what is not excused; "" if the verdict is equivalent
	}{
		{"a time stamp", "built 12:00:01\n", "built 12:00:09\n", "built 13:59:10\n", ""},
		{"a time stamp with its date, the next year", "built Mon Nov 23 12:00:01 UTC 2026", "built Mon Nov 23 12:00:09 UTC 2026", "built Fri Jan  1 00:00:01 UTC 2027", ""},
		{"not repeated at all", "built 12:00:01\n", "built 12:00:01\n", "built 13:59:10\n", "13:59:10"},
		{"the host's name beside a time stamp in one line", "built 12:00:01 on alpha\n", "built 12:00:09 on alpha\n", "built 12:00:10 on beta\n", "beta"},
		{"the time zone beside a time stamp", "at Mon Nov 23 12:00:01 UTC 2026", "at Mon Nov 23 12:00:02 UTC 2026", "at Mon Nov 23 13:00:03 CET 2026", "CET"},
		{"the offset beside a time stamp", "2026-11-23T12:00:01+00:00", "2026-11-23T12:00:02+00:00", "2026-11-23T13:00:03+01:00", "+01"},
		{"a name where a time stamp was", "by 12:00:01\n", "by 12:00:09\n", "by root\n", "root"},
		{"a second time stamp", "12:00:01 2001-01-01\n", "12:00:09 2001-01-01\n", "12:00:10 2002-02-02\n", "2002"},
		{"a number beside a random one", "pid 4711 uid 1000\n", "pid 4713 uid 1000\n", "pid 99 uid 1001\n", "1001"},
		{"a random number", "pid 4711 uid 1000\n", "pid 4713 uid 1000\n", "pid 99 uid 1000\n", ""},
		{"a prefix of a number", "host1-17", "host1-19", "host2-21", "host2"},
		{"a temporary path", "/tmp/tmp.aB3x/f.c", "/tmp/tmp.Zz09/f.c", "/tmp/tmp.q7Qq/f.c", ""},
		{"another directory of a temporary path", "/tmp/tmp.aB3x/f.c", "/tmp/tmp.Zz09/f.c", "/var/tmp.q7Qq/f.c", "/var"},
		{"a word after a token that varies", "by x9a\n", "by q77\n", "by z1z@beta\n", "beta"},
		{"a word after a token that is the same", "by x9a\n", "by q77\n", "by x9a@beta\n", "beta"},
		{"a duration in other words", "in 5 s, fine", "in 1 min 3 s, fine", "in 2 min 9 s, fine", ""},
		{"a word in a duration", "in 5 s, fine", "in 1 min 3 s, fine", "in beta 9 s, fine", "beta"},
		{"base 64", "sig ab+Zk/12==\n", "sig 9q8/+x1q==\n", "sig Zq1+77/+a==\n", ""},
		{"a word after base 64", "sig ab+Zk/12==\n", "sig 9q8/+x1q==\n", "sig Zq1+77/+a== of beta\n", "beta"},
		{"hexadecimal", "id=00aa11bb22cc33dd", "id=ffaa11bb22cc3311", "id=1234567890123456", ""},
		{"hexadecimal of another length", "id=00aa11bb22cc33dd", "id=ffaa11bb22cc3311", "id=1234", "1234"},
		{"the order of lines", "a\nb\nc\n", "c\na\nb\n", "b\nc\na\n", ""},
		{"another line amid another order", "a\nb\nc\n", "c\na\nb\n", "b\nc\nX\n", "line 1 is missing"},
		{"order without a repetition", "a\nb\nc\n", "a\nb\nc\n", "b\nc\na\n", "another order"},
		{"lines that come and go", "a\nb\nc\n", "a\nb\nlog\nc\n", "a\nb\nroot@beta\nc\n", "added"},
		{"tar times", tarOf(entry{name: "x", time: at(1)}), tarOf(entry{name: "x", time: at(2)}), tarOf(entry{name: "x", time: at(3)}), ""},
		{"a tar time that did not vary", tarOf(entry{name: "x", time: at(1)}, entry{name: "y", time: at(0)}), tarOf(entry{name: "x", time: at(2)}, entry{name: "y", time: at(0)}), tarOf(entry{name: "x", time: at(3)}, entry{name: "y", time: at(9)}), "!y: time"},
		{"tar owner beside a time", tarOf(entry{name: "x", time: at(1), uid: 1}), tarOf(entry{name: "x", time: at(2), uid: 1}), tarOf(entry{name: "x", time: at(3), uid: 2}), "owner"},
		{"an owner that varies takes one of its values", tarOf(entry{name: "x", uid: 1}), tarOf(entry{name: "x", uid: 2}), tarOf(entry{name: "x", uid: 2}), ""},
		{"an owner that varies, and a third one", tarOf(entry{name: "x", uid: 1}), tarOf(entry{name: "x", uid: 2}), tarOf(entry{name: "x", uid: 3}), "owner"},
		{"content beside a time", tarOf(entry{name: "x", data: "1", time: at(1)}), tarOf(entry{name: "x", data: "1", time: at(2)}), tarOf(entry{name: "x", data: "2", time: at(3)}), "line 1"},
		{"an added member", tarOf(entry{name: "x"}), tarOf(entry{name: "x"}, entry{name: "y"}), tarOf(entry{name: "x"}, entry{name: "y", data: "beta"}), "added"},
		{"names with the date", tarOf(entry{name: "p-20261123/x", data: "12:00:00"}), tarOf(entry{name: "p-20261124/x", data: "12:00:01"}), tarOf(entry{name: "p-20261125/x", data: "12:00:02"}), ""},
		{"a time as a number", u32(1795435201), u32(1795435202), u32(1795499999), ""},
		{"a number where a time was", u32(1795435201), u32(1795435202), u32(7), "offset"},
		{"random bytes", "\x00\x01head\x00" + random(16) + "\x00tail\x80", "\x00\x01head\x00" + random(16) + "\x00tail\x80", "\x00\x01head\x00" + random(16) + "\x00tail\x80", ""},
		{"bytes far from random ones", "\x00\x01alpha\x00\x00\x00\x00\x00\x00\x00\x00" + random(16) + "\x00\x80", "\x00\x01alpha\x00\x00\x00\x00\x00\x00\x00\x00" + random(16) + "\x00\x80", "\x00\x01gamma\x00\x00\x00\x00\x00\x00\x00\x00" + random(16) + "\x00\x80", "gamma"},
		{"a signature", random(71), random(72), random(70), ""},
		{"something opaque", "\x80" + random(9000), "\x80" + random(9001), "\x80" + random(9002), "cannot be told apart"},
		{"a torn archive", "\x1f\x8b\x08" + random(6000), "\x1f\x8b\x08" + random(6010), "\x1f\x8b\x08" + random(6020), "cannot be told apart"},
		{"a string in a program beside a time stamp", "\x00\x01\x02at 12:00:01\x00alpha\x00\xff", "\x00\x01\x02at 12:00:02\x00alpha\x00\xff", "\x00\x01\x02at 12:00:03\x00gamma\x00\xff", "gamma"},
		{"a longer string in a program beside a time stamp", "\x00\x01\x02at 12:00:01\x00alpha\x00\xff", "\x00\x01\x02at 12:00:02\x00alpha\x00\xff", "\x00\x01\x02at 12:00:03\x00betas-long\x00\xff", "betas"},
		{"a string of another length that varies", "\x00\x01\x02took 9 s\x00alpha\x00\xff", "\x00\x01\x02took 10 s\x00alpha\x00\xff", "\x00\x01\x02took 110 s\x00alpha\x00\xff", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			itself := files(t, []byte(c.a), []byte(c.b), nil)
			r := files(t, []byte(c.a), []byte(c.c), itself)
			got := show(r.Beyond)
			if (got == "") != (c.beyond == "") || !strings.Contains(got, c.beyond) {
				t.Errorf("beyond:\n%swant %q\nitself:\n%s", got, c.beyond, show(itself.Differences))
			}
			if len(r.Beyond)+len(r.Excused) < 1 {
				t.Error("no difference found")
			}
		})
	}
}

// TestRuleRandom: random data must never make the verdict flaky.
func TestRuleRandom(t *testing.T) {
	for _, form := range []func([]byte) []byte{
		func(p []byte) []byte {
			return []byte(fmt.Sprintf("uuid %x-%x-%x-%x-%x\n", p[:4], p[4:6], p[6:8], p[8:10], p[10:16]))
		},
		func(p []byte) []byte { return []byte(fmt.Sprintf("seed: %x, fine\n", p[:8])) },
		func(p []byte) []byte { return []byte(fmt.Sprintf("digest %x  file\n", p[:32])) },
		func(p []byte) []byte { return append(append([]byte("\x00bin\x00"), p[:20]...), "\x00the end\x80"...) },
		func(p []byte) []byte { return p },
	} {
		for range 120 {
			v := make([][]byte, 3)
			for i := range v {
				p := make([]byte, 64)
				_, _ = rand.Read(p)
				v[i] = form(p)
			}
			r := files(t, v[0], v[2], files(t, v[0], v[1], nil))
			if len(r.Beyond) > 0 {
				t.Fatalf("%q, %q, %q:\n%s", v[0], v[1], v[2], show(r.Beyond))
			}
		}
	}
}

// TestMany: like differences are put together, and all of them are judged.
func TestMany(t *testing.T) {
	make := func(sec, odd int) []byte {
		var list []entry
		for i := range 3000 {
			list = append(list, entry{name: fmt.Sprintf("f%04d", i), time: at(sec)})
		}
		list[2500].time = at(odd)
		return makeZip(t, list...)
	}
	itself := files(t, make(10, 0), make(20, 0), nil)
	if len(itself.Differences) > 10 || !strings.Contains(show(itself.Differences), "2999 members, first f0000") {
		t.Errorf("got %d:\n%s", len(itself.Differences), show(itself.Differences))
	}
	if r := files(t, make(10, 0), make(30, 0), itself); len(r.Beyond) != 0 {
		t.Errorf("beyond:\n%s", show(r.Beyond))
	}
	if r := files(t, make(10, 0), make(30, 40), itself); !strings.Contains(show(r.Beyond), "f2500") || strings.Contains(show(r.Beyond), "f0000") {
		t.Errorf("beyond:\n%s", show(r.Beyond))
	}
}

// TestBounded: many unlike differences end in a count.
func TestBounded(t *testing.T) {
	var a, b []entry
	for i := range 500 {
		a = append(a, entry{name: fmt.Sprintf("f%03d", i), data: "alpha"})
		b = append(b, entry{name: fmt.Sprintf("f%03d", i), data: "beta"})
	}
	r := files(t, makeTar(t, a...), makeTar(t, b...), nil)
	if n := len(r.Differences); n != maxDifferences+1 || r.Differences[n-1].What != "and 300 more differences" {
		t.Errorf("%d differences, the last %v", n, r.Differences[n-1])
	}
}

// TestBomb: content that expands without end is compared as bytes.
func TestBomb(t *testing.T) {
	zeros := bytes.Repeat([]byte{0}, 4<<20)
	a, b := gz(t, zeros, at(1)), gz(t, append(zeros, 1), at(1))
	r, err := Files(context.Background(), "out", Bytes(a), Bytes(b), Options{Scratch: t.TempDir(), Budget: 1 << 20})
	if err != nil || len(r.Differences) == 0 {
		t.Errorf("%v\n%s", err, show(r.Differences))
	}
	deep := []byte("x")
	other := []byte("y")
	for range 2 * maxDepth {
		deep, other = gz(t, deep, time.Time{}), gz(t, other, time.Time{})
	}
	if r := files(t, deep, other, nil); len(r.Differences) == 0 {
		t.Error("no difference found in deep nesting")
	}
}

// TestProgram compiles a program whose time and build id vary.
func TestProgram(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler")
	}
	dir := t.TempDir()
	compile := func(when, who string) []byte {
		src := filepath.Join(dir, "x.c")
		if err := os.WriteFile(src, []byte("#include <stdio.h>\nint main(void){puts(\"at "+when+"\");puts(\""+who+"\");return 0;}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(cc, "-O1", "-Wl,--build-id", "-o", "x", "x.c")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		data, err := os.ReadFile(filepath.Join(dir, "x"))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	a, b, c, d := compile("12:00:01", "alpha"), compile("12:00:02", "alpha"), compile("12:00:03", "alpha"), compile("12:00:03", "gamma")
	itself := files(t, a, b, nil)
	want := []blueprint.Difference{{Path: "out [.note.gnu.build-id]", What: "another value", Cause: CauseBuildID}, {Path: "out [.rodata]", Cause: CauseTime}}
	if len(itself.Differences) != 2 || itself.Differences[0] != want[0] || itself.Differences[1].Path != want[1].Path || itself.Differences[1].Cause != want[1].Cause {
		t.Errorf("itself:\n%s", show(itself.Differences))
	}
	if r := files(t, a, c, itself); len(r.Beyond) != 0 {
		t.Errorf("beyond:\n%s", show(r.Beyond))
	}
	if r := files(t, a, d, itself); !strings.Contains(show(r.Beyond), "gamma") {
		t.Errorf("a changed string hides beside a time stamp:\n%s", show(r.Differences))
	}
}

// TestOutputs pairs what builds made.
func TestOutputs(t *testing.T) {
	type file struct{ path, data, mode, link string }
	store := map[string]string{}
	outputs := func(list []file) []blueprint.Output {
		var out []blueprint.Output
		for _, f := range list {
			o := blueprint.Output{Path: f.path, Mode: f.mode, Link: f.link}
			if f.link == "" {
				o.SHA256 = "sha256:" + f.data
				store[o.SHA256] = f.data
			}
			out = append(out, o)
		}
		return out
	}
	open := func(digest func(blueprint.Output) string) Open {
		return func(_ context.Context, o blueprint.Output) (File, func(), error) {
			data, ok := store[digest(o)]
			if !ok {
				return File{}, nil, &GoneError{"it is not in the depot"}
			}
			return Bytes([]byte(data)), func() {}, nil
		}
	}
	sha := func(o blueprint.Output) string { return o.SHA256 }
	for _, c := range []struct {
		name         string
		a, b, c      []file
		want, beyond []string // what Differences and Beyond begin with
		lost         bool
	}{
		{name: "identical", a: []file{{path: "x", data: "1"}}, c: []file{{path: "x", data: "1"}}},
		{name: "not repeated", a: []file{{path: "x", data: "12:00:01"}}, c: []file{{path: "x", data: "12:00:02"}}, want: []string{"x: line 1"}, beyond: []string{"x: line 1"}},
		{name: "equivalent", a: []file{{path: "x", data: "12:00:01"}}, b: []file{{path: "x", data: "12:00:02"}}, c: []file{{path: "x", data: "12:00:03"}}, want: []string{"x: line 1"}},
		{name: "only one of two is excused", a: []file{{path: "x", data: "12:00:01"}, {path: "y", data: "1"}}, b: []file{{path: "x", data: "12:00:02"}, {path: "y", data: "1"}}, c: []file{{path: "x", data: "12:00:03"}, {path: "y", data: "2"}}, want: []string{"x: line 1", "y: line 1"}, beyond: []string{"y: line 1"}},
		{name: "names with a date", a: []file{{path: "x-20260101", data: "1"}}, b: []file{{path: "x-20260102", data: "1"}}, c: []file{{path: "x-20260103", data: "1"}}, want: []string{"x-20260101: named"}},
		{name: "a name that did not vary", a: []file{{path: "x-20260101", data: "1"}}, b: []file{{path: "x-20260101", data: "1"}}, c: []file{{path: "x-20260103", data: "1"}}, want: []string{"x-20260101: named"}, beyond: []string{"x-20260101: named"}},
		{name: "links with a date", a: []file{{path: "l", link: "x-20260101"}}, b: []file{{path: "l", link: "x-20260102"}}, c: []file{{path: "l", link: "x-20260103"}}, want: []string{"l: links to"}},
		{name: "links elsewhere", a: []file{{path: "l", link: "x"}}, b: []file{{path: "l", link: "y"}}, c: []file{{path: "l", link: "z"}}, want: []string{"l: links to"}, beyond: []string{"l: links to"}},
		{name: "mode", a: []file{{path: "x", data: "1", mode: "0644"}}, b: []file{{path: "x", data: "1", mode: "0644"}}, c: []file{{path: "x", data: "1", mode: "0755"}}, want: []string{"x: mode 0755"}, beyond: []string{"x: mode 0755"}},
		{name: "missing and added", a: []file{{path: "x", data: "1"}}, b: []file{{path: "x", data: "1"}}, c: []file{{path: "y", data: "1"}}, want: []string{"x: the other", "y: only"}, beyond: []string{"x: the other", "y: only"}},
		{name: "lost from the depot", a: []file{{path: "x", data: "1"}}, c: []file{{path: "x", data: "2"}}, lost: true, want: []string{"x: its bytes differ"}, beyond: []string{"x: its bytes differ"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := Builds{Made: outputs(c.a), Other: outputs(c.c), OpenMade: open(sha), OpenOther: open(sha), OpenAgain: open(func(o blueprint.Output) string { return o.Again }), Scratch: t.TempDir()}
			if c.b != nil {
				pairs, err := Outputs(t.Context(), Builds{Made: o.Made, Other: outputs(c.b), OpenMade: open(sha), OpenOther: open(sha), Scratch: o.Scratch})
				if err != nil {
					t.Fatal(err)
				}
				o.Repeated, o.Differs = true, Itself(pairs)
				for _, p := range pairs {
					if p.Made != nil && p.Other != nil && p.Made.SHA256 != p.Other.SHA256 {
						p.Made.Again = p.Other.SHA256
					}
				}
			}
			if c.lost {
				clear(store)
			}
			pairs, err := Outputs(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			var all, beyond []blueprint.Difference
			for _, p := range pairs {
				all, beyond = append(all, p.Differences()...), append(beyond, p.Beyond...)
				if p.Identical != (len(p.Differences()) == 0) {
					t.Errorf("identical %t with %v", p.Identical, p.Differences())
				}
			}
			for what, l := range map[string][2][]string{"differences": {c.want, lines(all)}, "beyond": {c.beyond, lines(beyond)}} {
				if !slices.EqualFunc(l[0], l[1], func(want, got string) bool { return strings.HasPrefix(got, want) }) {
					t.Errorf("%s: got %q, want %q", what, l[1], l[0])
				}
			}
		})
	}
}

func lines(list []blueprint.Difference) []string {
	return strings.Split(strings.TrimSuffix(show(list), "\n"), "\n")[:len(list)]
}
