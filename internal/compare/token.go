package compare

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// token is one piece of a line: a time stamp, a UUID, a run of letters and
// digits, or any other single character.
type token struct {
	from, to int
	kind     byte // 's', 'u', 'w', 'o'
	group    int  // above 0: parts of one time stamp with a zone between them
}

const (
	reMonth = `(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*`
	reDay   = `(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*`
	reClock = `\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?: [AP]M)?`
)

// special finds time stamps and UUIDs. A time zone is never part of the match.
var special = regexp.MustCompile(`(?P<uuid>[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})` +
	`|(?P<unix>` + reDay + `,? ` + reMonth + ` +\d{1,2} ` + reClock + `)(?P<zone> [A-Z+-][A-Za-z0-9:+-]{1,8})?(?P<year> \d{4})` +
	`|(?P<words>(?:` + reDay + `,? )?(?:\d{1,2}[ -]` + reMonth + `[ -]\d{4}|` + reMonth + ` +\d{1,2},? \d{4})(?:,? ` + reClock + `)?)` +
	`|(?P<iso>\d{4}(?:-\d{2}-|/\d{2}/|\.\d{2}\.)\d{2}(?:[T _-]` + reClock + `)?)` +
	`|(?P<compact>(?:19|20)\d{6}[T_-]?\d{6}|(?:19|20)\d{6}[T_-]\d{4})` +
	`|(?P<clock>\d{1,2}:\d{2}:\d{2}(?:[.,]\d{1,9})?(?: [AP]M)?)` +
	`|(?P<duration>(?:\d+h)?(?:\d+m)?\d+(?:\.\d+)?(?:ns|us|µs|ms|s)|\d+m\d+s)` +
	`|(?P<date>(?:19|20)\d{6})` +
	`|(?P<number>\d{19}|\d{16}|\d{13}|\d{10}(?:\.\d{1,9})?)`)

// tokenise splits a line.
func tokenise(line []byte) []token {
	var list []token
	at, groups := 0, 0
	names := special.SubexpNames()
	for _, m := range special.FindAllSubmatchIndex(line, -1) {
		name := ""
		for i := 1; i < len(names); i++ {
			if m[2*i] >= 0 {
				name = names[i]
				break
			}
		}
		if !plausible(name, line, m[0], m[1]) {
			continue
		}
		list = plain(list, line, at, m[0])
		at = m[1]
		switch name {
		case "uuid":
			list = append(list, token{m[0], m[1], 'u', 0})
		case "unix":
			sub := func(n string) (int, int) { i := special.SubexpIndex(n); return m[2*i], m[2*i+1] }
			_, end := sub("unix")
			y, yend := sub("year")
			groups++
			list = append(list, token{m[0], end, 's', groups})
			list = plain(list, line, end, y+1)
			list = append(list, token{y + 1, yend, 's', groups})
		default:
			list = append(list, token{m[0], m[1], 's', 0})
		}
	}
	return plain(list, line, at, len(line))
}

// plausible rejects numbers that only look like a time.
func plausible(name string, line []byte, from, to int) bool {
	digit := func(i int) bool { return i >= 0 && i < len(line) && line[i] >= '0' && line[i] <= '9' }
	if digit(from-1) && digit(from) || digit(to) && digit(to-1) {
		return false
	}
	letter := func(i int) bool { return i >= 0 && i < len(line) && wordByte(line[i]) }
	s := string(line[from:to])
	switch name {
	case "duration":
		return !letter(from-1) && !letter(to)
	case "number":
		if letter(from-1) || letter(to) {
			return false
		}
		whole, _, _ := strings.Cut(s, ".")
		n, err := strconv.ParseInt(whole, 10, 64)
		for k := len(whole); k > 10; k -= 3 {
			n /= 1000
		}
		return err == nil && plausibleSeconds(n)
	case "compact", "date":
		if letter(from-1) && !strings.ContainsRune("Vv", rune(line[from-1])) || letter(to) && line[to] != 'Z' {
			return false
		}
		month, _ := strconv.Atoi(s[4:6])
		day, _ := strconv.Atoi(s[6:8])
		return month >= 1 && month <= 12 && day >= 1 && day <= 31
	case "iso":
		month, _ := strconv.Atoi(s[5:7])
		day, _ := strconv.Atoi(s[8:10])
		return month >= 1 && month <= 12 && day >= 1 && day <= 31
	}
	return true
}

// plausibleSeconds accepts the years 2001 to 2099.
func plausibleSeconds(n int64) bool { return n >= 1_000_000_000 && n < 4_102_444_800 }

func wordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf
}

func plain(list []token, line []byte, from, to int) []token {
	for i := from; i < to; {
		j := i + 1
		if !wordByte(line[i]) {
			list = append(list, token{i, j, 'o', 0})
			i = j
			continue
		}
		for j < to && wordByte(line[j]) {
			j++
		}
		list = append(list, token{i, j, 'w', 0})
		i = j
	}
	return list
}

// masked gives the line with its time stamps and UUIDs blanked, to find lines
// that correspond.
func masked(line []byte) string {
	if !bytes.ContainsAny(line, "0123456789") {
		return string(line) // every time stamp has a digit
	}
	var b strings.Builder
	for _, t := range tokenise(line) {
		if t.kind == 's' || t.kind == 'u' {
			b.WriteByte(t.kind - 'a' + 1)
		} else {
			b.Write(line[t.from:t.to])
		}
	}
	return b.String()
}

// unit is one thing in which two lines differ, with its place in both.
type unit struct {
	from, to   int // in the first
	bfrom, bto int // in the second
	kind       kind
	cause      string
	// also is a further interval of the first that varies with this one.
	also [2]int
}

// units tells in which things two lines differ.
func units(a, b []byte) []unit {
	ta, tb := tokenise(a), tokenise(b)
	same := len(ta) == len(tb)
	for i := 0; same && i < len(ta); i++ {
		x, y := ta[i], tb[i]
		// A number may look like a time stamp by chance.
		same = x.group == y.group && (x.kind == y.kind || wordBytes(a[x.from:x.to]) && wordBytes(b[y.from:y.to]))
	}
	var list []unit
	if same {
		for i := range ta {
			list = append(list, pair(a, b, ta[i], tb[i])...)
		}
		for i := range list {
			list[i].also = linked(ta, list[i])
		}
	} else {
		list = []unit{region(a, b, ta, tb)}
	}
	for i := range list {
		if u := &list[i]; u.cause == "" || u.cause == CauseRandom {
			if inPath(a, u.from) && inPath(b, u.bfrom) {
				u.cause = CausePath
			}
		}
	}
	return list
}

func linked(tokens []token, u unit) [2]int {
	for _, t := range tokens {
		if t.from != u.from || t.group == 0 {
			continue
		}
		for _, o := range tokens {
			if o.group == t.group && o.from != t.from {
				return [2]int{o.from, o.to}
			}
		}
	}
	return [2]int{-1, -1}
}

func pair(a, b []byte, x, y token) []unit {
	p, q := a[x.from:x.to], b[y.from:y.to]
	if bytes.Equal(p, q) {
		return nil
	}
	u := unit{from: x.from, to: x.to, bfrom: y.from, bto: y.to}
	switch {
	case x.kind == 's' && y.kind == 's':
		u.kind, u.cause = kindStamp, CauseTime
	case x.kind == 'u':
		u.kind, u.cause = kindUUID, CauseRandom
	case x.kind == 'o':
		u.kind = kindToken
	default:
		if len(p) == len(q) && len(p) >= 8 && isHex(p) && isHex(q) && !(isDigits(p) && isDigits(q)) {
			u.kind = kindHex
			if !digestLength(len(p)) {
				u.cause = CauseRandom
			}
			break
		}
		if list := runs(p, q, u); list != nil {
			return list
		}
		if u.kind = kindToken; len(p) == len(q) && len(p) >= 6 {
			u.cause = CauseRandom
		}
	}
	return []unit{u}
}

func wordBytes(p []byte) bool {
	for _, c := range p {
		if !wordByte(c) {
			return false
		}
	}
	return true
}

// digestLength tells lengths that are more likely a digest of something else
// that differs than random.
func digestLength(n int) bool { return n == 32 || n == 40 || n == 64 || n == 96 || n == 128 }

// runs splits two tokens of the same pattern into runs of letters and digits.
func runs(p, q []byte, u unit) []unit {
	var list []unit
	i, j := 0, 0
	for i < len(p) && j < len(q) {
		d := isDigits(p[i : i+1])
		if d != isDigits(q[j:j+1]) {
			return nil
		}
		k, l := i, j
		for k < len(p) && isDigits(p[k:k+1]) == d {
			k++
		}
		for l < len(q) && isDigits(q[l:l+1]) == d {
			l++
		}
		if !bytes.Equal(p[i:k], q[j:l]) {
			kd := kindLetters
			if d {
				kd = kindDigits
			}
			list = append(list, unit{from: u.from + i, to: u.from + k, bfrom: u.bfrom + j, bto: u.bfrom + l, kind: kd})
		}
		i, j = k, l
	}
	if i < len(p) || j < len(q) {
		return nil
	}
	return list
}

func isDigits(p []byte) bool {
	for _, c := range p {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func isHex(p []byte) bool {
	for _, c := range p {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return false
		}
	}
	return true
}

// region is what is left of two lines without their common ends.
func region(a, b []byte, ta, tb []token) unit {
	eq := func(x, y token) bool { return x.kind == y.kind && bytes.Equal(a[x.from:x.to], b[y.from:y.to]) }
	i := 0
	for i < len(ta) && i < len(tb) && eq(ta[i], tb[i]) {
		i++
	}
	j := 0
	for j < len(ta)-i && j < len(tb)-i && eq(ta[len(ta)-1-j], tb[len(tb)-1-j]) {
		j++
	}
	end := func(list []token, line []byte, i, j int) (int, int) {
		from := len(line)
		if i < len(list) {
			from = list[i].from
		}
		if k := len(list) - j; k > i {
			return from, list[k-1].to
		}
		return from, from
	}
	u := unit{kind: kindRegion, also: [2]int{-1, -1}}
	u.from, u.to = end(ta, a, i, j)
	u.bfrom, u.bto = end(tb, b, i, j)
	return u
}

// inPath reports whether the word at i is an absolute path of two parts or more.
func inPath(line []byte, i int) bool {
	const ends = " \t\"'`=:,;()[]<>{}|\x00"
	from, to := min(i, len(line)), min(i, len(line))
	for from > 0 && !strings.ContainsRune(ends, rune(line[from-1])) && line[from-1] >= ' ' {
		from--
	}
	for to < len(line) && !strings.ContainsRune(ends, rune(line[to])) && line[to] >= ' ' {
		to++
	}
	word := line[from:to]
	return len(word) > 3 && word[0] == '/' && bytes.Count(word, []byte("/")) >= 2
}

// allows tells whether a unit of a third version may stand in this span; text
// is what it has there.
func (s span) allows(u unit, text []byte) bool {
	switch s.kind {
	case kindStamp, kindUUID, kindDigits, kindLetters:
		return u.kind == s.kind
	case kindHex:
		return (u.kind == kindHex || u.kind == kindDigits || u.kind == kindLetters || u.kind == kindStamp) && u.bto-u.bfrom == u.to-u.from
	case kindToken:
		return u.kind != kindRegion
	case kindRegion:
		return s.texts != nil && resembles(string(text), s.texts[0], s.texts[1])
	}
	return false
}

// resembles tells whether a text of several tokens may be one more of two that
// vary in their number of tokens: it brings no word that they do not have, and
// where they are single words, such as random data in base 64, so is it.
func resembles(text, a, b string) bool {
	if !strings.ContainsAny(a+b, " \t") {
		near := func(n int) bool { return len(text) >= n-4 && len(text) <= n+4 }
		return !strings.ContainsAny(text, " \t") && (near(len(a)) || near(len(b)))
	}
	known := map[string]bool{}
	for _, w := range append(letters(a), letters(b)...) {
		known[w] = true
	}
	for _, w := range letters(text) {
		if !known[w] {
			return false
		}
	}
	return true
}

func letters(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r < utf8.RuneSelf && (!wordByte(byte(r)) || r >= '0' && r <= '9') })
}
