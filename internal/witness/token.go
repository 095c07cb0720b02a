package witness

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // of ESS certificate identifiers
	"crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/digitorus/pkcs7"
	"github.com/digitorus/timestamp"
)

// TokenError says why a time stamp proves nothing.
type TokenError struct {
	What   string
	Remedy string
}

func (e *TokenError) Error() string { return "the time stamp is not valid: " + e.What }

// Hint is what to do next.
func (e *TokenError) Hint() string { return e.Remedy }

const (
	otherCopy = "look for another copy of the token; if there is none, the bytes have no time but their commit's"
	otherRoot = "check the authority's certificate, which comes from the authority itself, not with the token"
)

// VerifyStamp tells when an authority of the roots saw the bytes. It is what anybody
// can check without Trysail: openssl ts -verify -token_in.
func VerifyStamp(token, data []byte, roots *x509.CertPool) (time.Time, error) {
	if roots == nil {
		// For x509 that would be whoever the system believes about web servers.
		return time.Time{}, &TokenError{"no authority is believed", otherRoot}
	}
	s, err := readToken(token)
	if err != nil {
		return time.Time{}, &TokenError{err.Error(), otherCopy}
	}
	if err := s.about(data); err != nil {
		return time.Time{}, &TokenError{err.Error(), "give the bytes that were stamped, unchanged"}
	}
	between := x509.NewCertPool()
	for _, c := range s.Certificates {
		between.AddCert(c)
	}
	if _, err := s.by.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: s.Time, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageTimeStamping},
	}); err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			return time.Time{}, &TokenError{fmt.Sprintf("a certificate was not valid when it was used, %s: %v", s.Time.UTC().Format(time.RFC3339), err), otherRoot}
		}
		return time.Time{}, &TokenError{fmt.Sprintf("%s is not an authority that is believed: %v", s.by.Subject, err), otherRoot}
	}
	return s.Time.UTC(), nil
}

// stamped is a token that is right in itself: whose it is remains to be seen.
type stamped struct {
	*timestamp.Timestamp
	by *x509.Certificate
}

// about tells whether it is about some bytes.
func (s *stamped) about(data []byte) error {
	if s.HashAlgorithm != crypto.SHA256 {
		return fmt.Errorf("it is over a digest of %v, not SHA-256", s.HashAlgorithm)
	}
	if sum := sha256.Sum256(data); !bytes.Equal(sum[:], s.HashedMessage) {
		return fmt.Errorf("it is about other bytes: of SHA-256 %x, not %x", s.HashedMessage, sum)
	}
	return nil
}

// envelope is the outside of a token (RFC 5652), read once more without the
// library, which does not show the type of what is signed.
type envelope struct {
	Type asn1.ObjectIdentifier
	Data struct {
		Version int
		Digests []pkix.AlgorithmIdentifier `asn1:"set"`
		Content struct {
			Type   asn1.ObjectIdentifier
			Octets []byte `asn1:"explicit,tag:0"`
		}
		Certificates asn1.RawValue   `asn1:"optional,tag:0"`
		CRLs         asn1.RawValue   `asn1:"optional,tag:1"`
		Signers      []asn1.RawValue `asn1:"set"`
	} `asn1:"explicit,tag:0"`
}

func timeStampInfo() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 1, 4}
}

// depth is how deep a token may nest; they have some twelve levels.
const depth = 24

// der checks that bytes are DER as far as lengths and nesting go. The library makes
// DER of BER, and both it and encoding/asn1 overlook a length that does not fit, so
// that many tokens would be one; a deep nest would keep it busy.
func der(data []byte, levels int) error {
	const constructed, class, number = 0x20, 0xc0, 0x1f
	for len(data) > 0 {
		if len(data) < 2 || levels == 0 {
			return errors.New("it is no DER, or nests too deep")
		}
		tag, n, head := data[0], int(data[1]), 2
		if n >= 0x80 {
			more := n & 0x7f
			if more < 1 || more > 2 || len(data) < 2+more || data[2] == 0 {
				return errors.New("it is no DER: a length is not written in its one way")
			}
			n, head = 0, 2+more
			for _, b := range data[2:head] {
				n = n<<8 | int(b)
			}
			if n < 0x80 {
				return errors.New("it is no DER: a length is not written in its one way")
			}
		}
		if n > len(data)-head {
			return errors.New("it is torn, or no DER: a length does not fit")
		}
		sequence := tag&number == asn1.TagSequence || tag&number == asn1.TagSet
		if tag&number == number || (tag&class == 0 && sequence != (tag&constructed != 0)) {
			return fmt.Errorf("it is no DER: the tag %#x", tag)
		}
		if tag&constructed != 0 {
			if err := der(data[head:head+n], levels-1); err != nil {
				return err
			}
		}
		data = data[head+n:]
	}
	return nil
}

// readToken reads a token and checks all that can be checked without knowing whom to
// believe. What the library makes of hostile bytes is an error at worst.
func readToken(token []byte) (s *stamped, err error) {
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("it cannot be read: %v", r)
		}
	}()
	if len(token) > maxToken {
		return nil, fmt.Errorf("%d bytes is too large, %d is the most", len(token), maxToken)
	}
	if err := der(token, depth); err != nil {
		return nil, err
	}
	var e envelope
	rest, err := asn1.Unmarshal(token, &e)
	switch {
	case err != nil:
		return nil, fmt.Errorf("it cannot be read: %w", err)
	case len(rest) > 0:
		return nil, fmt.Errorf("%d bytes follow it", len(rest))
	case !e.Type.Equal(pkcs7.OIDSignedData):
		return nil, fmt.Errorf("nothing is signed: its type is %v", e.Type)
	case !e.Data.Content.Type.Equal(timeStampInfo()):
		return nil, fmt.Errorf("what is signed is no time stamp: its type is %v", e.Data.Content.Type)
	case e.Data.Version != 3 || len(e.Data.Digests) != 1 || len(e.Data.Signers) != 1:
		return nil, fmt.Errorf("it is of version %d with %d digests and %d signers, not 3, 1 and 1", e.Data.Version, len(e.Data.Digests), len(e.Data.Signers))
	}
	p, err := pkcs7.Parse(token)
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	by := p.GetOnlySigner()
	if by == nil {
		return nil, errors.New("the certificate of its signer is not with it")
	}
	if !bytes.Equal(p.Content, e.Data.Content.Octets) {
		return nil, errors.New("it can be read in two ways")
	}
	signer := p.Signers[0]
	if signer.Version != 1 {
		return nil, fmt.Errorf("its signer is of version %d, not 1", signer.Version)
	}
	if err := algorithms(signer.DigestAlgorithm, signer.DigestEncryptionAlgorithm, e.Data.Digests[0]); err != nil {
		return nil, err
	}
	attributes := map[string][]byte{}
	for _, a := range signer.AuthenticatedAttributes {
		if _, ok := attributes[a.Type.String()]; ok {
			return nil, fmt.Errorf("the attribute %v stands twice", a.Type)
		}
		attributes[a.Type.String()] = a.Value.Bytes
	}
	var kind asn1.ObjectIdentifier
	if err := whole(attributes[pkcs7.OIDAttributeContentType.String()], &kind); err != nil || !kind.Equal(timeStampInfo()) {
		return nil, errors.New("its signer did not sign that it is a time stamp")
	}
	if err := named(by, attributes["1.2.840.113549.1.9.16.2.12"], attributes["1.2.840.113549.1.9.16.2.47"]); err != nil {
		return nil, err
	}
	// This checks the digest of what is signed, and the signature.
	t, err := timestamp.Parse(token)
	if err != nil {
		return nil, err
	}
	for _, x := range t.Extensions {
		if x.Critical {
			return nil, fmt.Errorf("it has a critical extension that is not known: %v", x.Id)
		}
	}
	if err := forStampsOnly(by); err != nil {
		return nil, err
	}
	return &stamped{t, by}, nil
}

// whole reads one value and nothing after it.
func whole(der []byte, v any) error {
	rest, err := asn1.Unmarshal(der, v)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow", len(rest))
	}
	return err
}

// digest is a hash that is still good.
func digest(id asn1.ObjectIdentifier) (crypto.Hash, bool) {
	switch {
	case id.Equal(pkcs7.OIDDigestAlgorithmSHA256):
		return crypto.SHA256, true
	case id.Equal(pkcs7.OIDDigestAlgorithmSHA384):
		return crypto.SHA384, true
	case id.Equal(pkcs7.OIDDigestAlgorithmSHA512):
		return crypto.SHA512, true
	}
	return 0, false
}

// algorithms refuses SHA-1, which the library takes, and what does not go together,
// which it overlooks.
func algorithms(hash, signature, declared pkix.AlgorithmIdentifier) error {
	h, ok := digest(hash.Algorithm)
	if !ok {
		return fmt.Errorf("its digest algorithm %v is not SHA-256, SHA-384 or SHA-512", hash.Algorithm)
	}
	if !hash.Algorithm.Equal(declared.Algorithm) {
		return fmt.Errorf("it declares the digest algorithm %v, and has %v", declared.Algorithm, hash.Algorithm)
	}
	for _, a := range []pkix.AlgorithmIdentifier{hash, signature, declared} {
		if p := a.Parameters.FullBytes; len(p) > 0 && !bytes.Equal(p, asn1.NullBytes) {
			return fmt.Errorf("the algorithm %v has parameters", a.Algorithm)
		}
	}
	fit := map[crypto.Hash][]asn1.ObjectIdentifier{
		crypto.SHA256: {pkcs7.OIDEncryptionAlgorithmRSASHA256, pkcs7.OIDDigestAlgorithmECDSASHA256},
		crypto.SHA384: {pkcs7.OIDEncryptionAlgorithmRSASHA384, pkcs7.OIDDigestAlgorithmECDSASHA384},
		crypto.SHA512: {pkcs7.OIDEncryptionAlgorithmRSASHA512, pkcs7.OIDDigestAlgorithmECDSASHA512, pkcs7.OIDEncryptionAlgorithmEDDSA25519},
	}
	if !signature.Algorithm.Equal(pkcs7.OIDEncryptionAlgorithmRSA) && !slices.ContainsFunc(fit[h], signature.Algorithm.Equal) {
		return fmt.Errorf("its signature algorithm %v is not RSA, ECDSA or Ed25519 over %v", signature.Algorithm, h)
	}
	return nil
}

// named checks that the signer's certificate is part of what it signed (RFC 5035):
// else another one of the same key, with another name or purpose, could take its
// place. The first form, which many authorities use, has a SHA-1, which is no
// weakness here: who finds another certificate still needs a root to sign it.
func named(by *x509.Certificate, first, second []byte) error {
	type id struct {
		Algorithm    pkix.AlgorithmIdentifier `asn1:"optional"`
		Hash         []byte
		IssuerSerial asn1.RawValue `asn1:"optional"`
	}
	if first == nil && second == nil {
		return errors.New("its signer did not sign with which certificate")
	}
	for i, der := range [][]byte{first, second} {
		if der == nil {
			continue
		}
		var list struct {
			Certificates []id
			Policies     asn1.RawValue `asn1:"optional"`
		}
		if err := whole(der, &list); err != nil || len(list.Certificates) == 0 {
			return errors.New("with which certificate it is signed cannot be read")
		}
		c := list.Certificates[0] // the signer's; others are of its chain
		h, ok := crypto.SHA1, len(c.Algorithm.Algorithm) == 0
		if i == 1 {
			if h = crypto.SHA256; !ok {
				h, ok = digest(c.Algorithm.Algorithm)
			}
		}
		if !ok {
			return fmt.Errorf("its certificate is named by the digest %v", c.Algorithm.Algorithm)
		}
		sum := h.New()
		sum.Write(by.Raw)
		if !bytes.Equal(sum.Sum(nil), c.Hash) {
			return fmt.Errorf("it was signed with another certificate than that of %s", by.Subject)
		}
	}
	return nil
}

// forStampsOnly checks what RFC 3161, 2.3 asks of an authority's certificate.
func forStampsOnly(c *x509.Certificate) error {
	if len(c.ExtKeyUsage) != 1 || len(c.UnknownExtKeyUsage) > 0 || c.ExtKeyUsage[0] != x509.ExtKeyUsageTimeStamping {
		return fmt.Errorf("the certificate of %s is not for time stamping alone (extended key usage timeStamping)", c.Subject)
	}
	for _, x := range c.Extensions {
		if x.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 37}) && x.Critical {
			return nil
		}
	}
	return fmt.Errorf("the certificate of %s is for time stamping, and does not say so critically", c.Subject)
}
