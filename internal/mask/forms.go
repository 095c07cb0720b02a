package mask

import "unicode/utf8"

// decoded is a byte of the stream, or what an escape of the stream stands for.
type decoded struct {
	c        byte
	from, to int64 // where it stands in the stream
}

// decoder undoes escapes.
type decoder struct {
	pending [6]byte // an escape that has begun
	n       int
	from    int64
	out     []decoded
}

// plain undoes nothing.
func plain(d *decoder, b byte, at int64) { d.out = append(d.out, decoded{b, at, at + 1}) }

// hold begins an escape, or goes on with it.
func (d *decoder) hold(b byte, at int64) {
	if d.n == 0 {
		d.from = at
	}
	d.pending[d.n] = b
	d.n++
}

// is ends an escape that stands for some bytes.
func (d *decoder) is(to int64, list ...byte) {
	for _, c := range list {
		d.out = append(d.out, decoded{c, d.from, to})
	}
	d.n = 0
}

// not ends what was no escape: it stands for itself.
func (d *decoder) not() {
	for i := range d.n {
		at := d.from + int64(i)
		d.out = append(d.out, decoded{d.pending[i], at, at + 1})
	}
	d.n = 0
}

// percent undoes the escapes of URLs, but for that of a blank as a plus.
func percent(d *decoder, b byte, at int64) {
	switch {
	case d.n == 1 && isHex(b):
		d.hold(b, at)
	case d.n == 2 && isHex(b):
		d.is(at+1, digit(d.pending[1])<<4|digit(b))
	default:
		d.not()
		if b == '%' {
			d.hold(b, at)
			return
		}
		plain(d, b, at)
	}
}

// backslash undoes the escapes of JSON, C and many languages.
func backslash(d *decoder, b byte, at int64) {
	kind := d.pending[1]
	switch {
	case d.n == 0 && b == '\\':
		d.hold(b, at)
	case d.n == 0:
		plain(d, b, at)
	case d.n == 1 && (b == 'u' || b == 'x' || isOctal(b)):
		d.hold(b, at)
	case d.n == 1:
		d.is(at+1, short(b))
	case kind == 'u' && d.n < 5 && isHex(b):
		d.hold(b, at)
	case kind == 'u' && d.n == 5 && isHex(b):
		r := rune(digit(d.pending[2]))<<12 | rune(digit(d.pending[3]))<<8 | rune(digit(d.pending[4]))<<4 | rune(digit(b))
		d.is(at+1, utf8.AppendRune(nil, r)...)
	case kind == 'x' && d.n == 2 && isHex(b):
		d.hold(b, at)
	case kind == 'x' && d.n == 3 && isHex(b):
		d.is(at+1, digit(d.pending[2])<<4|digit(b))
	case isOctal(kind) && d.n == 2 && isOctal(b):
		d.hold(b, at)
	case isOctal(kind) && d.n == 3 && isOctal(b):
		d.is(at+1, (kind-'0')<<6|(d.pending[2]-'0')<<3|(b-'0'))
	default:
		d.not()
		backslash(d, b, at)
	}
}

// short is what a backslash and one character stand for.
func short(b byte) byte {
	switch b {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	}
	return b
}

func isOctal(b byte) bool { return b >= '0' && b <= '7' }

func isHex(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F'
}

func digit(b byte) byte {
	if b >= 'a' {
		return b - 'a' + 10
	}
	if b >= 'A' {
		return b - 'A' + 10
	}
	return b - '0'
}

// fold says what of a form's bytes counts: each is matched as another, or left free.
type fold struct {
	to   [256]byte
	free [256]uint8
}

const (
	free    = 1 // everywhere
	indents = 2 // where a line begins
)

// breaks is a form that may break into lines.
func breaks() *fold {
	f := &fold{}
	for c := range f.to {
		f.to[c] = byte(c)
	}
	f.set(free, "\r\n")
	return f
}

func (f *fold) set(how uint8, list string) {
	for i := range len(list) {
		f.free[list[i]] = how
	}
}
