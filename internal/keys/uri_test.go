package keys

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestURI(t *testing.T) {
	for text, want := range map[string]uri{
		"pkcs11:token=rel;object=k1":                                          {token: "rel", object: "k1"},
		"pkcs11:object=k1;token=rel":                                          {token: "rel", object: "k1"},
		"pkcs11:token=My%20token;id=%01%ff":                                   {token: "My token", id: "\x01\xff"},
		"pkcs11:token=a&b;object=x?module-path=/m.so":                         {token: "a&b", object: "x", module: "/m.so"},
		"pkcs11:token=t;object=o?pin-source=file:/p&module-path=/usr/l%20x/m": {token: "t", object: "o", module: "/usr/l x/m", pin: "/p"},
		"pkcs11:token=%C3%89quipe;object=cl%c3%a9;id=%00":                     {token: "Équipe", object: "clé", id: "\x00"},
		"pkcs11:token=a%3Bb%3Dc%25;object=x:[]@!$'()*+,=-._~":                 {token: "a;b=c%", object: "x:[]@!$'()*+,=-._~"},
	} {
		u, err := parseURI(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if u != want {
			t.Errorf("%s: %+v, want %+v", text, u, want)
		}
	}
}

func TestURIRefused(t *testing.T) {
	for text, what := range map[string]string{
		"pkcs11:":                                             "has no =",
		"pkcs11:token=t":                                      "names no key",
		"pkcs11:object=o":                                     "names no token",
		"pkcs11:token=t;object=o;":                            "has no =",
		"pkcs11:token=t;object=o?":                            "has no =",
		"pkcs11:token=t;;object=o":                            "has no =",
		"pkcs11:token=t;object=o;token=t":                     "twice",
		"pkcs11:token=t;object=o;serial=1":                    `"serial" is not known`,
		"pkcs11:token=t;object=o;type=private":                `"type" is not known`,
		"pkcs11:Token=t;object=o":                             `"Token" is not known`,
		"pkcs11:token=t;object=o;module-path=/m":              `"module-path" is not known`,
		"pkcs11:token=t;object=o?module-name=opensc":          `"module-name" is not known`,
		"pkcs11:token=t;object=o?id=%01":                      `"id" is not known`,
		"pkcs11:token=t;object=":                              "object is empty",
		"pkcs11:token=my token;object=o":                      "a space as %20",
		"pkcs11:token=é;object=o":                             "two hexadecimal digits",
		"pkcs11:token=t/u;object=o":                           "two hexadecimal digits",
		"pkcs11:token=t%2;object=o":                           "two hexadecimal digits",
		"pkcs11:token=t%zz;object=o":                          "%25",
		"pkcs11:token=t%00;object=o":                          "not one line of text",
		"pkcs11:token=t;object=o%0A":                          "not one line of text",
		"pkcs11:token=t;object=%ff":                           "not one line of text",
		"pkcs11:token=" + strings.Repeat("x", 33) + ";id=%01": "at most 32 bytes",
		"pkcs11:token=t;object=o?module-path=m.so":            "not absolute",
		"pkcs11:token=t;object=o?pin-source=pin":              "not the absolute path",
		"pkcs11:token=t;object=o?pin-source=|/bin/pin":        "not the absolute path",
		"pkcs11:token=t;object=o?pin-source=file://h/pin":     "not the absolute path",
		"pkcs11:token=t;object=o?pin-source=https://h/":       "not the absolute path",
		"PKCS11:token=t;object=o":                             "small letters",
	} {
		_, err := parseURI(text)
		if err == nil {
			t.Errorf("%s: no error", text)
			continue
		}
		refusedWith(t, err, what)
		_, err = Open(t.Context(), text, Options{})
		refusedWith(t, err, what)
	}
}

// A PIN in a reference is refused for what it does, and is not shown again.
func TestPINInReference(t *testing.T) {
	const pin = "86753090"
	for _, text := range []string{
		"pkcs11:token=t;object=o?pin-value=" + pin,
		"pkcs11:token=t;object=o?module-path=/m&pin-value=" + pin,
		"pkcs11:token=t;pin-value=" + pin,
		"pkcs11:pin-value=" + pin,
		"PKCS11:token=t?pin-value=" + pin,
		"pkcs11:token=t;object=o?pin-source=" + pin,
		"pkcs11:token=t;object=o;serial=" + pin,
		"pkcs11:token=t;object=o?" + pin,
	} {
		_, err := Open(t.Context(), text, Options{})
		refusedWith(t, err)
		var e *Error
		if errors.As(err, &e) && strings.Contains(e.Error()+e.Hint(), pin) {
			t.Errorf("%s: the error shows the PIN: %v (%s)", text, e, e.Hint())
		}
		if strings.HasPrefix(text, "pkcs11:") && strings.Contains(text, "pin-value") {
			refusedWith(t, err, "history", "pin-source=")
		}
	}
}

func FuzzURI(f *testing.F) {
	for _, s := range []string{
		"pkcs11:token=rel;object=k1", "pkcs11:token=t;id=%01%ff?module-path=/m.so&pin-source=file:/p",
		"pkcs11:token=t;object=o?pin-value=1234", "pkcs11:;?&=", "pkcs11:token=%", "pkcs11:token=a;object=%C3%A9?", "PKCS11:",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parseURI(s)
		if err != nil {
			refusedWith(t, err)
			return
		}
		if u.token == "" || u.object+u.id == "" || strings.ContainsRune(u.token+u.object+u.module+u.pin, 0) ||
			u.module != "" && !filepath.IsAbs(u.module) || u.pin != "" && !filepath.IsAbs(u.pin) {
			t.Errorf("%q: read as %+v", s, u)
		}
		again, err := parseURI(u.String())
		if err != nil || again != u {
			t.Errorf("%q: %+v is written as %q and read as %+v, %v", s, u, u, again, err)
		}
		if short, err := parseURI(u.key()); err != nil || short != (uri{token: u.token, object: u.object, id: u.id}) {
			t.Errorf("%q: named %q", s, u.key())
		}
	})
}
