package keys

import (
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// uri is a PKCS#11 URI (RFC 7512), of which only what finds one key and its PIN is
// read. An attribute that would be ignored could mean another key.
type uri struct {
	token  string
	object string
	id     string // bytes; empty: not given
	module string // path of the PKCS#11 module; empty: OpenSC's
	pin    string // path of the file with the PIN; empty: asked for
}

const maxToken = 32 // bytes of a token's label in PKCS#11

// parseURI reads a URI strictly. No error has a value in it, because one may be a
// PIN.
func parseURI(ref string) (uri, error) {
	var u uri
	if !strings.HasPrefix(ref, tokenPrefix) {
		return uri{}, badURI("its scheme is written in small letters", "write pkcs11:")
	}
	path, query, _ := strings.Cut(ref[len(tokenPrefix):], "?")
	seen := map[string]bool{}
	read := func(part, sep, free string, fields map[string]*string) error {
		for a := range strings.SplitSeq(part, sep) {
			name, value, ok := strings.Cut(a, "=")
			field := fields[name]
			switch {
			case name == "pin-value":
				return badURI("pin-value would put the PIN among the arguments of a program and into the shell's history", "put the PIN into a file with mode 0600 and write ?pin-source=/path/to/file, or leave it out and be asked")
			case !ok:
				return badURI("an attribute has no =", uriForm())
			case field == nil:
				return badURI(fmt.Sprintf("attribute %.20q is not known here", name), "keep only token, object and id, and after the ? module-path and pin-source")
			case seen[name]:
				return badURI("attribute "+name+" stands there twice", "keep one")
			}
			seen[name] = true
			text, err := unescape(name, value, free)
			if err != nil {
				return err
			}
			*field = text
		}
		return nil
	}
	if err := read(path, ";", "&", map[string]*string{"token": &u.token, "object": &u.object, "id": &u.id}); err != nil {
		return uri{}, err
	}
	if strings.Contains(ref, "?") {
		if err := read(query, "&", "/?|", map[string]*string{"module-path": &u.module, "pin-source": &u.pin}); err != nil {
			return uri{}, err
		}
	}
	u.pin = strings.TrimPrefix(u.pin, "file:")
	return u, u.check()
}

// unescape decodes a value, of which free are the characters that stand for
// themselves in its part of a URI besides those that do everywhere.
func unescape(name, value, free string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case c == '%' && i+2 < len(value):
			h, err := hex.DecodeString(value[i+1 : i+3])
			if err != nil {
				return "", badURI("a % in "+name+" does not stand before two hexadecimal digits", "write a percent sign as %25")
			}
			b.Write(h)
			i += 2
		case plain(c) || strings.IndexByte(free, c) >= 0:
			b.WriteByte(c)
		default:
			return "", badURI("a character in "+name+" must be written as % and two hexadecimal digits", "write a space as %20, a semicolon as %3B")
		}
	}
	if b.Len() == 0 {
		return "", badURI("attribute "+name+" is empty", "give its value, or leave it out")
	}
	return b.String(), nil
}

// plain tells the characters that stand for themselves everywhere.
func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~:[]@!$'()*+,=", c) >= 0
}

func (u uri) check() error {
	for _, a := range []struct{ name, value string }{{"token", u.token}, {"object", u.object}, {"module-path", u.module}, {"pin-source", u.pin}} {
		if !utf8.ValidString(a.value) || strings.ContainsFunc(a.value, unicode.IsControl) {
			return badURI(a.name+" is not one line of text", "only id may hold any bytes")
		}
	}
	switch {
	case u.token == "":
		return badURI("it names no token", "pkcs11-tool -T lists the tokens: "+uriForm())
	case len(u.token) > maxToken:
		return badURI(fmt.Sprintf("the label of a token has at most %d bytes", maxToken), "pkcs11-tool -T lists the tokens")
	case u.object == "" && u.id == "":
		return badURI("it names no key", "give object (the key's label) or id: "+uriForm())
	case u.module != "" && !filepath.IsAbs(u.module):
		return badURI("module-path is not absolute: what is loaded must not hang on where a command runs", "give the whole path, /usr/lib/…/….so")
	case u.pin != "" && (!filepath.IsAbs(u.pin) || strings.HasPrefix(u.pin, "//")):
		return badURI("pin-source is not the absolute path of a file", "give the whole path; programs and other addresses are not read")
	}
	return nil
}

func uriForm() string {
	return "'pkcs11:token=LABEL;object=LABEL?module-path=/usr/lib/…/….so&pin-source=/path/to/file'"
}

func badURI(what, remedy string) *Error {
	return &Error{Key: "the pkcs11: reference", What: what, Remedy: remedy}
}

// key names what is meant, without how it is reached.
func (u uri) key() string {
	s := tokenPrefix + "token=" + escape(u.token)
	if u.object != "" {
		s += ";object=" + escape(u.object)
	}
	if u.id != "" {
		s += ";id=" + escapeID(u.id)
	}
	return s
}

func (u uri) String() string {
	s, sep := u.key(), "?"
	for _, a := range []struct{ name, value string }{{"module-path", u.module}, {"pin-source", u.pin}} {
		if a.value != "" {
			s += sep + a.name + "=" + escape(a.value)
			sep = "&"
		}
	}
	return s
}

// escape writes a value so that every reader of such URIs takes it.
func escape(value string) string {
	var b strings.Builder
	for i := range len(value) {
		if c := value[i]; plain(c) || c == '/' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func escapeID(id string) string {
	var b strings.Builder
	for i := range len(id) {
		fmt.Fprintf(&b, "%%%02X", id[i])
	}
	return b.String()
}
