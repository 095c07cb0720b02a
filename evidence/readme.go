package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// readme says to whoever opens the bundle, years later and without this program, what
// is in it and what to type. Each command is run by a test.
func readme(h *history, b *Bundle, key *ecdsa.PublicKey) ([]byte, error) {
	print, err := Fingerprint(key)
	if err != nil {
		return nil, err
	}
	s := h.state
	var w bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&w, format+"\n", args...) }
	p("Release %s: the evidence", b.Version)
	p("")
	p("Shipped %s, of revision %s.", h.shipped.UTC().Format("2006-01-02 15:04:05 UTC"), s.Source.Revision)
	if c := s.Gold.Confirmed; c != nil {
		p("Built on %s, and again on %s: %s.", s.Gold.Machine, s.Gold.By, c.Verdict)
	}
	p("")
	p("The keys in trust/ came with this bundle: alone they prove that it is of one piece, and")
	p("not whose it is. Compare them with what you have from elsewhere:")
	p("")
	p("  release key  %s", print)
	p("  ledger key   %s", strings.TrimSpace(string(b.Files[logKeyFile])))
	p("")
	p("All at once")
	p("")
	p("    trysail verify .")
	p("")
	p("Every file, and who says so (sha256sum, ssh-keygen)")
	p("")
	p("    sha256sum --check --strict --quiet %s", sumsFile)
	p("    ssh-keygen -Y verify -f %s -I %s -n %s -s %s < %s", releaseSigners, ReleasePrincipal, NamespaceBundle, sumsSignature, sumsFile)
	p("")
	p("    sha256sum sees what was changed or removed, and not what was added: compare")
	p("    find . -type f with the list.")
	p("")
	if len(h.signed) > 0 {
		p("Sign-offs and decisions (ssh-keygen). An SSH signature has no time: it is verified at the time at")
		p("which the ledger has it, by the list of who could sign then")
		p("")
	}
	for _, x := range h.signed {
		name, revoked := signOffName(x.event, x.body)+".json", ""
		if x.revoked != "" {
			revoked = " -r " + signersFile(x.revoked)
		}
		principal, err := principalOf(x, b.Files[signersFile(x.allowed)])
		if err != nil {
			return nil, err
		}
		p("    ssh-keygen -Y verify -f %s%s -I %s -n %s -O verify-time=%sZ -s %s.sig < %s", signersFile(x.allowed), revoked, quote(principal), NamespaceSignOff, x.event.Time.UTC().Format("20060102150405"), name, name)
	}
	if len(h.signed) > 0 {
		p("")
	}
	p("What was built, of what and where (in-toto statements in DSSE envelopes, SLSA)")
	p("")
	digests := map[string]string{}
	if s.Gold.Tree != "" {
		p("    (of the list of the files: %s has the digest of each)", goldFile)
		digests[goldFile] = s.Gold.Tree
	} else {
		for name, a := range b.Artifacts {
			digests[name] = a.Digest
		}
	}
	names := slices.Sorted(maps.Keys(digests))
	for _, name := range names {
		p("    cosign verify-blob-attestation --key %s --insecure-ignore-tlog --type slsaprovenance1 --bundle %s %s", releaseKeyFile, provenanceFile, quote(name))
	}
	for _, name := range names {
		p("    slsa-verifier verify-vsa --subject-digest %s --attestation-path %s --verifier-id %s --resource-uri %s --verified-level %s --public-key-path %s",
			digests[name], summaryLine, quote(VerifierID(h.fleet)), quote(ResourceURI(b.Version)), LevelBuilt, releaseKeyFile)
	}
	p("")
	p("The envelope's signature alone (openssl): DSSEv1, and the lengths and texts of type and payload")
	p("")
	p("    python3 -c 'import base64,json,sys; e=json.load(open(\"%s\")); t=e[\"payloadType\"].encode(); b=base64.b64decode(e[\"payload\"]); sys.stdout.buffer.write(b\"DSSEv1 %%d %%s %%d %%s\" %% (len(t),t,len(b),b))' > /tmp/pae", summaryLine)
	p("    python3 -c 'import base64,json,sys; e=json.load(open(\"%s\")); sys.stdout.buffer.write(base64.b64decode(e[\"signatures\"][0][\"sig\"]))' > /tmp/sig", summaryLine)
	p("    openssl dgst -sha256 -verify %s -signature /tmp/sig /tmp/pae", releaseKeyFile)
	p("")
	if _, ok := b.Files[StampFile]; ok {
		p("When the ledger stood so, by an authority whose certificate you have (RFC 3161)")
		p("")
		p("    openssl ts -verify -token_in -in %s -data %s -CAfile AUTHORITY.pem", StampFile, CheckpointFile)
		p("")
	}
	p("What is here")
	p("")
	for _, x := range [][2]string{
		{artifactDir + "/", "what was shipped"},
		{"attest/", "provenance and verification summary, signed with the release key"},
		{blueprintDir + "/", "the definition of the build servers"},
		{drillDir + "/", "drills that were in force, as they were recorded"},
		{eventsFile, "everything that happened, one event a line"},
		{goldFile, "the files that were shipped, one a line"},
		{checkpointFile, "how the ledger stands, signed by control (C2SP signed note)"},
		{StampFile, "when that was, by a time stamping authority"},
		{runbookFile, "the process that was followed"},
		{runbooksDir + "/", "the process as it was before it was amended"},
		{sbomDir + "/", "bills of materials: what was shipped, what it was built on"},
		{signOffDir + "/", "who said what of which bytes, and that it is in the ledger"},
		{path.Dir(releaseKeyFile) + "/", "keys: a convenience, compare them"},
	} {
		if has(b, x[0]) {
			p("  %-24s %s", x[0], x[1])
		}
	}
	return w.Bytes(), nil
}

// principalOf is the name by which the signer of a sign-off stands among the signers.
func principalOf(x signedOff, allowed []byte) (string, error) {
	list, err := ParseSigners(allowedFile, allowed)
	if err != nil {
		return "", err
	}
	sig, err := unarmor([]byte(x.body.Signed().Signature))
	if err != nil {
		return "", err
	}
	for _, want := range []string{x.person.Name, x.person.Email} {
		for _, y := range list {
			if want != "" && equal(y.Key, sig.PublicKey) && slices.Contains(y.Principals, want) {
				return want, nil
			}
		}
	}
	return x.person.Name, nil
}

func has(b *Bundle, name string) bool {
	for n := range b.Files {
		if n == name || strings.HasSuffix(name, "/") && strings.HasPrefix(n, name) {
			return true
		}
	}
	for n := range b.Artifacts {
		if strings.HasSuffix(name, "/") && strings.HasPrefix(n, name) {
			return true
		}
	}
	return false
}

// quote writes a name for a shell.
func quote(s string) string {
	if strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./+:=@%", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
