package limit

import (
	"crypto/tls"
	"crypto/x509"
	"time"
)

// Certificates has a server look at the certificates of its peers itself, by the roots
// (ClientCAs) that its configuration names. A peer sends as many certificates as it likes,
// and package tls tries each of them as the issuer of each other, with keys that the peer
// chose: a handshake of a stranger would take seconds of a processor. Here a root itself
// has signed the first certificate, and no other is looked at: one signature.
//
// A connection's PeerCertificates are then verified, and there are no VerifiedChains.
// Also is called with a certificate that a root has signed, if it is not nil.
func Certificates(c *tls.Config, also func(*x509.Certificate) error) *tls.Config {
	c = c.Clone()
	roots, now := c.ClientCAs, c.Time
	if now == nil {
		now = time.Now
	}
	if c.ClientAuth == tls.RequireAndVerifyClientCert {
		c.ClientAuth = tls.RequireAnyClientCert
	} else {
		c.ClientAuth = tls.RequestClientCert
	}
	c.VerifyPeerCertificate = nil // it is not called where a session is resumed
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return nil
		}
		cert := s.PeerCertificates[0]
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			return err
		}
		if also != nil {
			return also(cert)
		}
		return nil
	}
	return c
}
