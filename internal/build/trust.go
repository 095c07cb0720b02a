package build

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"software.sslmate.com/src/go-pkcs12"

	"trysail/internal/machine"
)

// TrustDir is where the recorder's authority stands inside a build's root.
const TrustDir = "/.trysail-trust"

// systemBundle is where Debian keeps the authorities that it trusts; openssl,
// curl, git and apt read it unless told otherwise.
const systemBundle = "/etc/ssl/certs/ca-certificates.crt"

// trust makes this build, and no other program, trust the recorder. The bundle
// of the root with one authority added takes the place of the root's own;
// programs that do not read that are told by the variables they know.
func (o *Options) trust(env map[string]string) ([]machine.Mount, error) {
	dir, err := o.Session.MkdirAll(0o755, o.Name, "trust")
	if err != nil {
		return nil, err
	}
	bundle, err := os.ReadFile(filepath.Join(o.Root, systemBundle))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(bundle) > 0 && bundle[len(bundle)-1] != '\n' {
		bundle = append(bundle, '\n')
	}
	bundle = append(bundle, o.Network.CA()...)
	// The machine's own list of names is asked by the recorder, so that a name
	// has one meaning when it is recorded and when it is replayed.
	hosts := []byte("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if o.Hostname != "" {
		hosts = fmt.Appendf(hosts, "127.0.0.1\t%s\n", o.Hostname)
	}
	for name, data := range map[string][]byte{"ca.pem": bundle, "resolv.conf": o.Network.ResolvConf(), "hosts": hosts} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return nil, err
		}
	}
	inside := TrustDir + "/ca.pem"
	// openssl and Python, Go, curl, git, Node, Python's requests and pip, cargo, Deno, apt.
	for _, name := range []string{"SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CARGO_HTTP_CAINFO", "DENO_CERT", "npm_config_cafile"} {
		env[name] = inside
	}
	mounts := []machine.Mount{
		{Source: dir, Target: TrustDir, ReadOnly: true},
		{Source: filepath.Join(dir, "resolv.conf"), Target: "/etc/resolv.conf", ReadOnly: true},
		{Source: filepath.Join(dir, "hosts"), Target: "/etc/hosts", ReadOnly: true},
	}
	if _, err := os.Stat(filepath.Join(o.Root, systemBundle)); err == nil {
		mounts = append(mounts, machine.Mount{Source: filepath.Join(dir, "ca.pem"), Target: systemBundle, ReadOnly: true})
	}
	stores, err := javaStores(o.Root, env["JAVA_HOME"], o.User.Home)
	if err != nil || len(stores) == 0 {
		return mounts, err
	}
	data, err := javaTrustStore(bundle)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "cacerts"), data, 0o644); err != nil {
		return nil, err
	}
	for _, store := range stores {
		mounts = append(mounts, machine.Mount{Source: filepath.Join(dir, "cacerts"), Target: store, ReadOnly: true})
	}
	return mounts, nil
}

// javaStores finds the trust stores of the Javas in a root: Debian's, which its
// own Javas share, and those that others bring along.
func javaStores(root, javaHome, home string) ([]string, error) {
	homes := []string{"/usr/lib/jvm/*", "/opt/*", "/usr/local/*", "/usr/local/lib/*", filepath.Join(home, ".sdkman/candidates/java/*"), filepath.Join(home, ".jdks/*")}
	if filepath.IsAbs(javaHome) {
		homes = append(homes, javaHome)
	}
	patterns := []string{"/etc/ssl/certs/java/cacerts"}
	for _, h := range homes {
		patterns = append(patterns, filepath.Join(h, "lib/security/cacerts"), filepath.Join(h, "jre/lib/security/cacerts"))
	}
	found := map[string]bool{}
	for _, p := range patterns {
		list, err := filepath.Glob(filepath.Join(root, p))
		if err != nil {
			return nil, err
		}
		for _, f := range list {
			// A link leads to a store that is found by its own name.
			if info, err := os.Lstat(f); err == nil && info.Mode().IsRegular() {
				found["/"+strings.TrimPrefix(strings.TrimPrefix(f, root), "/")] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// javaTrustStore turns a PEM bundle into a PKCS #12 store. It has no password:
// Java opens its own store without one, and finds nothing in an encrypted one.
func javaTrustStore(bundle []byte) ([]byte, error) {
	var entries []pkcs12.TrustStoreEntry
	for rest := bytes.TrimSpace(bundle); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue // an old certificate that Go refuses; Java may live without it
		}
		entries = append(entries, pkcs12.TrustStoreEntry{Cert: cert, FriendlyName: cert.Subject.String()})
	}
	return pkcs12.Passwordless.EncodeTrustStoreEntries(entries, "")
}
