package recorder

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// What is kept holds no credentials: they are taken out of addresses, headers
// and the answers that grant them. The rules:
//
//   - user and password of an address are never kept;
//   - parameters that are tokens by their name are never kept, and in an
//     address with a signature neither are those that belong to it, since they
//     differ each time;
//   - headers that are cookies or tokens by their name are never kept; in all
//     others, addresses are cleaned;
//   - a small JSON answer is kept without the values that are tokens by their
//     name, and with cleaned addresses.

// redacted stands where a granted token stood; it opens nothing.
const redacted = "not-kept-by-trysail"

// tokenNames are names of parameters and fields whose values open something,
// in lower case without dashes and underscores.
func tokenNames() []string {
	return []string{"token", "accesstoken", "authtoken", "oauthtoken", "privatetoken", "jobtoken", "refreshtoken", "idtoken", "sessiontoken", "securitytoken", "clienttoken", "authorizationtoken", "bearertoken", "apitoken", "apikey", "jwt", "password", "passwd", "secret", "clientsecret", "secretaccesskey", "secretkey", "authorization", "proxyauthorization", "clientassertion"}
}

func plainName(name string) string {
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(name))
}

func tokenName(name string) bool { return slices.Contains(tokenNames(), plainName(name)) }

// signatureName tells the parameters that only a signature brings.
func signatureName(name string) bool {
	n := strings.ToLower(name)
	for _, p := range []string{"x-amz-", "x-goog-", "x-oss-", "x-cos-", "x-ms-"} {
		if strings.HasPrefix(n, p) {
			return true
		}
	}
	return slices.Contains([]string{"signature", "sig", "x-signature", "hmac", "hdnea", "hdnts", "__token__", "__gda__"}, n)
}

// signedName tells, in an address with a signature, the parameters that belong
// to it: some have names that mean nothing elsewhere.
func signedName(name string) bool {
	return signatureName(name) || slices.Contains([]string{"se", "sp", "sv", "sr", "skoid", "sktid", "skt", "ske", "sks", "skv", "spr", "st", "expires", "key-pair-id", "policy", "auth", "key", "awsaccesskeyid", "ossaccesskeyid", "googleaccessid", "response-content-disposition"}, strings.ToLower(name))
}

// cleanURL takes credentials and signatures out of an address. What remains of
// the query stays as it was written.
func cleanURL(u *url.URL) string {
	c := *u
	c.User, c.Fragment, c.RawFragment = nil, "", ""
	c.RawQuery = cleanQuery(u.RawQuery)
	c.ForceQuery = u.ForceQuery && u.RawQuery == c.RawQuery
	return c.String()
}

func cleanQuery(query string) string {
	parts := strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' })
	name := func(part string) string {
		k, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(k); err == nil {
			return plain
		}
		return k
	}
	signed := slices.ContainsFunc(parts, func(p string) bool { return signatureName(name(p)) })
	kept := slices.DeleteFunc(slices.Clone(parts), func(p string) bool {
		return tokenName(name(p)) || (signed && signedName(name(p)))
	})
	if len(kept) == len(parts) {
		return query
	}
	return strings.Join(kept, "&")
}

var addressRE = regexp.MustCompile(`https?://[^\s<>"'\\^{|}\x60]+`)

var parameterRE = regexp.MustCompile(`[?&;]([^\s?&;=<>"']+)=[^\s&;<>"',]*`)

// cleanText cleans every address in a text, and takes out parameters that are tokens by their
// name wherever they stand: an address with a space in it ends before them.
func cleanText(s string) string {
	if !strings.ContainsAny(s, "?&;") { // most have none, and a regular expression is slow on a long header
		return cleanAddresses(s)
	}
	return parameterRE.ReplaceAllStringFunc(cleanAddresses(s), func(p string) string {
		name, _, _ := strings.Cut(p[1:], "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		if tokenName(name) {
			return ""
		}
		return p
	})
}

func cleanAddresses(s string) string {
	return addressRE.ReplaceAllStringFunc(s, func(a string) string {
		u, err := url.Parse(a)
		if err != nil { // it may hold a password, or a token, all the same
			scheme, rest, _ := strings.Cut(a, "://")
			host, tail, slash := strings.Cut(rest, "/")
			if i := strings.LastIndexByte(host, '@'); i >= 0 || strings.Contains(tail, "?") {
				a = scheme + "://" + host[i+1:]
				if path, _, _ := strings.Cut(tail, "?"); slash {
					a += "/" + path
				}
			}
			return a
		}
		_, password := u.User.Password()
		query := cleanQuery(u.RawQuery)
		if !password && query == u.RawQuery {
			return a // to the letter
		}
		if u.RawQuery = query; password {
			u.User = nil
		}
		return u.String()
	})
}

// cleanHeader copies an answer's headers without cookies, credentials and hop
// by hop fields, and with cleaned addresses.
func cleanHeader(h map[string][]string) map[string][]string {
	out := map[string][]string{}
	for k, v := range h {
		n := strings.ToLower(k)
		if slices.Contains([]string{"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection", "te", "trailer", "alt-svc", "authentication-info", "proxy-authentication-info"}, n) ||
			strings.Contains(n, "cookie") || strings.Contains(n, "token") || strings.Contains(n, "secret") || strings.Contains(n, "password") || strings.Contains(n, "session") || strings.Contains(n, "api-key") || strings.HasSuffix(n, "authorization") {
			continue
		}
		for _, s := range v {
			if n == "location" || n == "content-location" {
				if u, err := url.Parse(s); err == nil && (u.RawQuery != "" || u.User != nil) {
					s = cleanURL(u)
				}
			}
			out[k] = append(out[k], cleanText(s))
		}
	}
	return out
}

// mostToken is the size up to which an answer is looked at for tokens.
const mostToken = 64 << 10

// mayGrant tells answers that may hold a token: small JSON ones.
func mayGrant(res *http.Response) bool {
	enc := res.Header.Get("Content-Encoding")
	return strings.Contains(res.Header.Get("Content-Type"), "json") && (enc == "" || enc == "gzip") && res.ContentLength < mostToken
}

// withoutTokens gives what may be kept of a JSON answer, and whether that is
// other than what was given: then it is not compressed.
func withoutTokens(data []byte, encoding string) ([]byte, bool) {
	plain := data
	if encoding == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return data, false
		}
		if plain, err = io.ReadAll(io.LimitReader(z, 16*mostToken)); err != nil {
			return data, false
		}
	}
	dec := json.NewDecoder(bytes.NewReader(plain))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return data, false
	}
	v, changed := strip(v, 0)
	if !changed {
		return data, false
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return data, false
	}
	return out.Bytes(), true
}

// strip replaces tokens and cleans addresses. Below the top a field called
// token may be anything, a grammar's for instance.
func strip(v any, depth int) (any, bool) {
	changed := false
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			s, isText := x.(string)
			if isText && s != "" && tokenName(k) && (depth == 0 || !slices.Contains([]string{"token", "secret", "password", "passwd"}, strings.ToLower(k))) {
				v[k], changed = redacted, true
				continue
			}
			y, c := strip(x, depth+1)
			v[k], changed = y, changed || c
		}
	case []any:
		for i, x := range v {
			y, c := strip(x, depth+1)
			v[i], changed = y, changed || c
		}
	case string:
		if c := cleanText(v); c != v {
			return c, true
		}
	}
	return v, changed
}
