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
	"path"
	"path/filepath"
	"slices"

	"software.sslmate.com/src/go-pkcs12"

	"trysail/internal/machine"
	"trysail/internal/tree"
)

// TrustDir is where the recorder's authority stands inside a build's root.
const TrustDir = "/.trysail-trust"

// systemBundle is where Debian keeps the authorities that it trusts; openssl,
// curl, git and apt read it unless told otherwise.
const systemBundle = "/etc/ssl/certs/ca-certificates.crt"

// maxBundle bounds a bundle of authorities, in bytes. Debian's has 0.2 MB.
const maxBundle = 16 << 20

// names gives the build the names that its network knows. The machine's own list is asked
// by the recorder, so that a name has one meaning when it is recorded and replayed.
func (o *Options) names() ([]machine.Mount, error) {
	dir, err := o.Session.MkdirAll(0o755, o.Name, "names")
	if err != nil {
		return nil, err
	}
	hosts := []byte("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	if o.Hostname != "" {
		hosts = fmt.Appendf(hosts, "127.0.0.1\t%s\n", o.Hostname)
	}
	var mounts []machine.Mount
	for name, data := range map[string][]byte{"resolv.conf": o.Network.ResolvConf(), "hosts": hosts} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return nil, err
		}
		mounts = append(mounts, machine.Mount{Source: filepath.Join(dir, name), Target: "/etc/" + name, ReadOnly: true})
	}
	return mounts, nil
}

// trust makes this build, and no other program, trust the recorder. The bundle
// of the root with one authority added takes the place of the root's own;
// programs that do not read that are told by the variables they know.
func (o *Options) trust(env map[string]string) ([]machine.Mount, error) {
	dir, err := o.Session.MkdirAll(0o755, o.Name, "trust")
	if err != nil {
		return nil, err
	}
	root, err := tree.OpenRoot(o.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	bundle, err := root.ReadFile(systemBundle, maxBundle)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return nil, err
	}
	if len(bundle) > 0 && bundle[len(bundle)-1] != '\n' {
		bundle = append(bundle, '\n')
	}
	bundle = append(bundle, o.Network.CA()...)
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), bundle, 0o644); err != nil {
		return nil, err
	}
	inside := TrustDir + "/ca.pem"
	// openssl and Python, Go, curl, git, Node, Python's requests and pip, cargo, Deno, apt.
	for _, name := range []string{"SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CARGO_HTTP_CAINFO", "DENO_CERT", "npm_config_cafile"} {
		env[name] = inside
	}
	mounts := []machine.Mount{{Source: dir, Target: TrustDir, ReadOnly: true}}
	if !missing {
		mounts = append(mounts, machine.Mount{Source: filepath.Join(dir, "ca.pem"), Target: systemBundle, ReadOnly: true})
	}
	stores, err := javaStores(root, env["JAVA_HOME"], o.User.Home)
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
func javaStores(root *tree.Dir, javaHome, home string) ([]string, error) {
	var homes []string
	for _, dir := range []string{"/usr/lib/jvm", "/opt", "/usr/local", "/usr/local/lib", path.Join(home, ".sdkman/candidates/java"), path.Join(home, ".jdks")} {
		list, err := root.ReadDir(dir)
		if err != nil {
			continue // no Java is there
		}
		for _, e := range list {
			homes = append(homes, path.Join(dir, e.Name()))
		}
	}
	if path.IsAbs(javaHome) {
		homes = append(homes, javaHome)
	}
	stores := []string{"/etc/ssl/certs/java/cacerts"}
	for _, h := range homes {
		stores = append(stores, path.Join(h, "lib/security/cacerts"), path.Join(h, "jre/lib/security/cacerts"))
	}
	found := map[string]bool{}
	for _, s := range stores {
		// A link leads to a store that is found by its own name.
		if info, err := root.Lstat(s); err == nil && info.Mode().IsRegular() {
			found[s] = true
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
