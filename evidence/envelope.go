package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/hiddeco/sshsig"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"golang.org/x/crypto/ssh"

	"trysail/internal/strict"
)

// Sign gives the ASN.1 ECDSA signature of the release key over the SHA-256 of message.
type Sign func(message []byte) ([]byte, error)

// sealed is an attestation in the form of Sigstore (bundle v0.3), signed with a key and
// not by a certificate: verifiers are given the key.
type sealed struct {
	MediaType string         `json:"mediaType"`
	Material  material       `json:"verificationMaterial"`
	Envelope  *dsse.Envelope `json:"dsseEnvelope"`
}

type material struct {
	PublicKey struct {
		Hint string `json:"hint"`
	} `json:"publicKey"`
	Entries []struct{} `json:"tlogEntries"`
	Stamps  struct {
		RFC3161 []struct{} `json:"rfc3161Timestamps"`
	} `json:"timestampVerificationData"`
}

const sealedType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// envelope signs a statement. The id of the key is left empty: who looks for it by
// another id than its own would not find it.
func envelope(statement []byte, sign Sign) (*dsse.Envelope, error) {
	sig, err := sign(dsse.PAE(payloadType, statement))
	if err != nil {
		return nil, err
	}
	return &dsse.Envelope{PayloadType: payloadType, Payload: base64.StdEncoding.EncodeToString(statement), Signatures: []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(sig)}}}, nil
}

// seal gives the envelope on one line, and as a Sigstore bundle.
func seal(statement []byte, key *ecdsa.PublicKey, sign Sign) (line, sigstore []byte, err error) {
	e, err := envelope(statement, sign)
	if err != nil {
		return nil, nil, err
	}
	if line, err = json.Marshal(e); err != nil {
		return nil, nil, err
	}
	hint, err := keyHint(key)
	if err != nil {
		return nil, nil, err
	}
	s := sealed{MediaType: sealedType, Envelope: e}
	s.Material.PublicKey.Hint, s.Material.Entries, s.Material.Stamps.RFC3161 = hint, []struct{}{}, []struct{}{}
	sigstore, err = render(s)
	return append(line, '\n'), sigstore, err
}

// keyHint names a key by the digest of what is in its PEM.
func keyHint(key *ecdsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	return sum(der), err
}

// open verifies an envelope and gives the statement.
func open(e *dsse.Envelope, key *ecdsa.PublicKey) ([]byte, error) {
	if e == nil || e.PayloadType != payloadType || len(e.Signatures) != 1 {
		return nil, errors.New("this is no envelope of one statement with one signature")
	}
	statement, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	if err != nil {
		return nil, fmt.Errorf("the payload: %w", err)
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(e.Signatures[0].Sig)
	if err != nil {
		return nil, fmt.Errorf("the signature: %w", err)
	}
	sum := sha256.Sum256(dsse.PAE(payloadType, statement))
	if !ecdsa.VerifyASN1(key, sum[:], sig) {
		return nil, errors.New("it is not signed with the release key")
	}
	return statement, nil
}

// openSealed verifies a Sigstore bundle, which is written in one way.
func openSealed(data []byte, key *ecdsa.PublicKey) ([]byte, error) {
	var s sealed
	if err := strict.JSON(data, maxPart, &s); err != nil {
		return nil, err
	}
	again, err := render(s)
	if err != nil {
		return nil, err
	}
	hint, err := keyHint(key)
	switch {
	case err != nil:
		return nil, err
	case !bytes.Equal(again, data) || s.MediaType != sealedType || len(s.Material.Entries) > 0 || len(s.Material.Stamps.RFC3161) > 0:
		return nil, errors.New("it is not written as this program writes it")
	case s.Material.PublicKey.Hint != hint:
		return nil, errors.New("it is not signed with the release key")
	}
	return open(s.Envelope, key)
}

// openLine verifies an envelope on one line.
func openLine(data []byte, key *ecdsa.PublicKey) ([]byte, error) {
	var e dsse.Envelope
	if err := strict.JSON(data, maxPart, &e); err != nil {
		return nil, err
	}
	if again, err := json.Marshal(e); err != nil || !bytes.Equal(append(again, '\n'), data) {
		return nil, errors.New("it is not written as this program writes it")
	}
	return open(&e, key)
}

// ParsePublic reads the release key as PEM.
func ParsePublic(data []byte) (*ecdsa.PublicKey, error) {
	b, rest := pem.Decode(data)
	if b == nil || b.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("this is no public key in PEM")
	}
	k, err := x509.ParsePKIXPublicKey(b.Bytes)
	if err != nil {
		return nil, err
	}
	e, ok := k.(*ecdsa.PublicKey)
	if !ok || e.Curve.Params().BitSize != 256 {
		return nil, errors.New("a release key is ECDSA P-256")
	}
	return e, nil
}

// Fingerprint is that of the release key as SSH writes it: for people to compare.
func Fingerprint(key *ecdsa.PublicKey) (string, error) {
	k, err := ssh.NewPublicKey(key)
	if err != nil {
		return "", err
	}
	return ssh.FingerprintSHA256(k), nil
}

// sshSigner lets the release key sign as SSH does: its ECDSA is over SHA-256 too, and
// writes the two numbers in another way.
type sshSigner struct {
	key  ssh.PublicKey
	sign Sign
}

func (s sshSigner) PublicKey() ssh.PublicKey { return s.key }

func (s sshSigner) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	sig, err := s.sign(data)
	if err != nil {
		return nil, err
	}
	var n struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(sig, &n); err != nil || len(rest) > 0 {
		return nil, errors.New("the release key gave no ASN.1 signature")
	}
	return &ssh.Signature{Format: s.key.Type(), Blob: ssh.Marshal(n)}, nil
}

// sshSign signs a message for a namespace, armoured.
func sshSign(message []byte, namespace string, key *ecdsa.PublicKey, sign Sign) ([]byte, error) {
	k, err := ssh.NewPublicKey(key)
	if err != nil {
		return nil, err
	}
	sig, err := sshsig.Sign(bytes.NewReader(message), sshSigner{k, sign}, sshsig.HashSHA512, namespace)
	if err != nil {
		return nil, err
	}
	return sshsig.Armor(sig), nil
}

// PublicPEM writes a key as others read it: a PKIX PEM.
func PublicPEM(key *ecdsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}
