package keys

import (
	"context"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// agentMost is what OpenSSH's agent takes as one request, in bytes; others may take
// less or more, so it explains a refusal and does not foresee one.
const agentMost = 256 << 10

// openAgent finds a key by its fingerprint or its comment. Only plain P-256 keys
// count: people give one comment to keys of several types, and to a key and its
// certificate. Keys that need a touch (sk-…) sign other bytes than the message.
func openAgent(ctx context.Context, want string, o Options) (Key, error) {
	name := agentPrefix + want
	socket := o.getenv("SSH_AUTH_SOCK")
	switch {
	case want == "":
		return nil, &Error{Key: name, What: "it names no key", Remedy: "agent:SHA256:… or agent:COMMENT; ssh-add -l lists both"}
	case socket == "":
		return nil, &Error{Key: name, What: "there is no SSH agent: SSH_AUTH_SOCK is not set", Remedy: "eval \"$(ssh-agent)\"; ssh-add FILE; sudo needs --preserve-env=SSH_AUTH_SOCK"}
	}
	var list []*agent.Key
	err := withAgent(ctx, name, socket, func(a agent.ExtendedAgent) error {
		var err error
		if list, err = a.List(); err != nil {
			return &Error{Key: name, What: "the SSH agent does not list its keys", Remedy: "see whether ssh-add -l does", Err: err}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	pub, err := pick(name, want, list)
	if err != nil {
		return nil, err
	}
	c, ok := pub.(ssh.CryptoPublicKey)
	if !ok {
		return nil, wrongKind(name, pub.Type())
	}
	ec, err := p256(name, c.CryptoPublicKey())
	if err != nil {
		return nil, err
	}
	return &key{name: name, pub: ec, sign: func(ctx context.Context, message []byte) ([]byte, error) {
		var sig *ssh.Signature
		err := withAgent(ctx, name, socket, func(a agent.ExtendedAgent) error {
			var err error
			if sig, err = a.Sign(pub, message); err != nil {
				return refused(name, len(message), err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		return der(name, sig)
	}}, nil
}

// pick chooses the one P-256 key that is meant.
func pick(name, want string, list []*agent.Key) (ssh.PublicKey, error) {
	var found ssh.PublicKey
	var prints, others []string
	for _, k := range list {
		pub, err := ssh.ParsePublicKey(k.Blob)
		if err != nil {
			continue // of a type that came after this program
		}
		print := ssh.FingerprintSHA256(pub)
		if print != want && k.Comment != want {
			continue
		}
		if pub.Type() != ssh.KeyAlgoECDSA256 {
			others = append(others, pub.Type())
			continue
		}
		found = pub
		prints = append(prints, print)
	}
	switch {
	case len(prints) == 1:
		return found, nil
	case len(prints) > 1:
		return nil, &Error{Key: name, What: fmt.Sprintf("%d keys of the SSH agent have this comment", len(prints)), Remedy: "name one by its fingerprint: agent:" + strings.Join(prints, " or agent:")}
	case len(others) > 0:
		return nil, wrongKind(name, strings.Join(others, " and "))
	case len(list) == 0:
		return nil, &Error{Key: name, What: "the SSH agent holds no keys, or is locked", Remedy: "ssh-add FILE; if it is locked, ssh-add -X"}
	}
	return nil, &Error{Key: name, What: fmt.Sprintf("the SSH agent holds %d keys, and not this one", len(list)), Remedy: "ssh-add FILE; ssh-add -l lists what is there"}
}

// withAgent talks to the agent once. A connection each time outlives an agent that
// was started again at the same place, and ends with ctx.
func withAgent(ctx context.Context, name, socket string, do func(agent.ExtendedAgent) error) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &Error{Key: name, What: "the SSH agent does not answer", Remedy: "eval \"$(ssh-agent)\"; ssh-add FILE", Err: err}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	err = do(agent.NewClient(conn))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func refused(name string, size int, err error) error {
	if size > agentMost-1024 { // the key and the framing are in the request too
		return &Error{
			Key: name, What: fmt.Sprintf("the SSH agent does not sign %d bytes: OpenSSH's takes at most %d", size, agentMost),
			Remedy: "sign with a key in an age file or on a token, which are given a digest", Err: err,
		}
	}
	return &Error{Key: name, What: "the SSH agent does not sign", Remedy: "confirm when it asks; ssh-add -l shows whether it still holds the key, ssh-add -X unlocks it", Err: err}
}

// der turns an SSH signature into the one that everybody else reads: the same two
// numbers, in ASN.1.
func der(name string, sig *ssh.Signature) ([]byte, error) {
	var rs struct{ R, S *big.Int }
	err := ssh.Unmarshal(sig.Blob, &rs)
	if err == nil && sig.Format != ssh.KeyAlgoECDSA256 {
		err = fmt.Errorf("its format is %.60q", sig.Format)
	}
	if err == nil && (rs.R.Sign() <= 0 || rs.S.Sign() <= 0) {
		err = errors.New("its numbers are not positive")
	}
	if err != nil {
		return nil, &Error{Key: name, What: "the SSH agent's signature is not one of ECDSA on P-256", Remedy: "use OpenSSH's ssh-agent", Err: err}
	}
	return asn1.Marshal(rs)
}
