package witness

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"

	"github.com/digitorus/timestamp"
)

// maxToken is the most that an authority may answer; with its whole chain a token
// has some six thousand bytes.
const maxToken = 64 << 10

// AuthorityError says why a time stamping authority gave no token. Its address may
// hold a password and is named by its host.
type AuthorityError struct {
	Host string
	What string
	Err  error // nil unless something else failed
}

func (e *AuthorityError) Error() string {
	s := "the time stamping authority " + e.Host + " " + e.What
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives what failed.
func (e *AuthorityError) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *AuthorityError) Hint() string {
	return "nothing was kept: try again later, or name another authority"
}

// Stamp asks an authority when some bytes were there. The token is whole: it holds
// the authority's certificate, and its signature was checked with that. Whether the
// authority is one to be believed is for [VerifyStamp].
func Stamp(ctx context.Context, client *http.Client, address string, data []byte) (token []byte, err error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, &AuthorityError{Host: "", What: "has no address that can be asked: write it whole, as https://tsa.example.com/"}
	}
	fail := func(err error, format string, args ...any) error {
		var with *url.Error
		if errors.As(err, &with) {
			err = with.Err // without the address
		}
		return &AuthorityError{u.Host, fmt.Sprintf(format, args...), err}
	}
	// 63 bits: some authorities refuse what does not fit into eight bytes.
	nonce, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	ask, err := (&timestamp.Request{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Certificates: true, Nonce: nonce}).Marshal()
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(ask))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/timestamp-query")
	r.Header.Set("Accept", "application/timestamp-reply")
	r.Header.Set("User-Agent", "trysail")
	a, err := client.Do(r)
	if err != nil {
		return nil, fail(err, "cannot be asked")
	}
	defer a.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(a.Body, maxToken+1))
	switch {
	case a.StatusCode != http.StatusOK:
		return nil, fail(nil, "answered %d", a.StatusCode)
	case err != nil:
		return nil, fail(err, "did not answer to the end")
	case len(answer) > maxToken:
		return nil, fail(nil, "answered more than %d bytes", maxToken)
	}
	if token, err = granted(answer); err != nil {
		return nil, fail(err, "answered with %.100q", a.Header.Get("Content-Type"))
	}
	s, err := readToken(token)
	if err != nil {
		return nil, fail(err, "gave a token that is none")
	}
	if s.Nonce == nil || s.Nonce.Cmp(nonce) != 0 {
		return nil, fail(nil, "answered another question: the nonce is not the one that was sent, so the token may be an old one")
	}
	if err := s.about(data); err != nil {
		return nil, fail(err, "answered another question")
	}
	return token, nil
}

// granted takes the token out of a response (RFC 3161, 2.4.2). The library's own
// takes a negative status for a granted one.
func granted(answer []byte) ([]byte, error) {
	var response struct {
		Status struct {
			Status  int
			Text    []asn1.RawValue `asn1:"optional"`
			Failure asn1.BitString  `asn1:"optional"`
		}
		Token asn1.RawValue `asn1:"optional"`
	}
	rest, err := asn1.Unmarshal(answer, &response)
	if err != nil {
		return nil, fmt.Errorf("this is no response of an authority: %w", err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes follow the response", len(rest))
	}
	// With modifications is a token too: what it states is looked at.
	if s := response.Status; s.Status != int(timestamp.Granted) && s.Status != int(timestamp.GrantedWithMods) {
		var why []string
		for i := range min(s.Failure.BitLength, 26) {
			if s.Failure.At(i) != 0 {
				why = append(why, timestamp.FailureInfo(i).String())
			}
		}
		for _, t := range s.Text[:min(len(s.Text), 4)] {
			why = append(why, fmt.Sprintf("%.200q", t.Bytes))
		}
		return nil, fmt.Errorf("%s: %s", timestamp.Status(s.Status), strings.Join(why, ", "))
	}
	if len(response.Token.FullBytes) == 0 {
		return nil, errors.New("the request is granted, and there is no token")
	}
	return response.Token.FullBytes, nil
}
