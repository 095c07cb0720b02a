package control

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"trysail/internal/ledger"
)

// TestSealed: the authority comes back out of the ledger on another disk, for whoever has
// a recipient's key, and for nobody else; the ledger holds no key that can be read.
func TestSealed(t *testing.T) {
	people := map[string]*age.X25519Identity{}
	files := map[string]string{}
	for _, n := range []string{"ann", "bob", "eve"} {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		people[n], files[n] = id, filepath.Join(t.TempDir(), n)
		if err := os.WriteFile(files[n], []byte(id.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	to := func(names ...string) (list []string) {
		for _, n := range names {
			list = append(list, people[n].Recipient().String())
		}
		return list
	}
	d := newDisk(t)
	c := begin(t, d, noon())
	lines := func() [][]byte {
		t.Helper()
		list, err := d.store.Read(t.Context(), AccessStream, 0)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if !c.OnThisDiskAlone() {
		t.Error("it is sealed before anybody asked")
	}
	c.o.Cluster = &crowd{members: []ledger.Member{{Name: "a", Votes: true}, {Name: "b"}}}
	if c.OnThisDiskAlone() {
		t.Error("another control holds it too")
	}
	c.o.Cluster = nil
	var lost *NoAuthorityError
	if err := Restore(t.TempDir(), lines(), files["ann"]); !errors.As(err, &lost) || !strings.Contains(lost.Hint(), "backup") {
		t.Errorf("nothing was sealed: %v", err)
	}
	for _, names := range [][]string{{"bob"}, {"ann", "bob"}, {"bob", "ann", "bob"}} {
		if err := c.Seal(t.Context(), to(names...)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(lines()); n != 2 {
		t.Errorf("the ledger has %d events: it is sealed again only to others", n)
	}
	if again := begin(t, d, noon()); again.OnThisDiskAlone() || len(again.sealed.To) != 2 {
		t.Errorf("a control that begins anew knows of %+v", again.sealed)
	}
	if err := c.Seal(t.Context(), []string{"nobody"}); err == nil {
		t.Error("sealed to nobody")
	}
	key, err := os.ReadFile(filepath.Join(d.dir, "authority.key"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(bytes.Join(lines(), nil), bytes.TrimSpace(key)) || bytes.Contains(bytes.Join(lines(), nil), []byte("PRIVATE")) {
		t.Error("the ledger holds the key as it is")
	}
	for _, x := range []struct {
		name, identity string
		lines          [][]byte
		hint           string // of an authority that is lost
		ok             bool
	}{
		{"one of them", files["ann"], lines(), "", true},
		{"the other", files["bob"], lines(), "", true},
		{"somebody else", files["eve"], lines(), "", false},
		{"nobody", "", lines(), people["ann"].Recipient().String(), false},
		{"a file that is not there", filepath.Join(t.TempDir(), "none"), lines(), "", false},
		{"a torn ledger", files["ann"], [][]byte{[]byte("{")}, "", false},
	} {
		t.Run(x.name, func(t *testing.T) {
			dir := t.TempDir()
			err := Restore(dir, x.lines, x.identity)
			if (err == nil) != x.ok {
				t.Fatalf("it ended: %v", err)
			}
			if errors.As(err, &lost) != (x.hint != "") || x.hint != "" && !strings.Contains(lost.Hint(), x.hint) {
				t.Errorf("it says: %v", err)
			}
			if !x.ok {
				if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
					t.Errorf("it left %v (%v)", list, err)
				}
				return
			}
			id, err := OpenIdentity(dir, nil, noon().time)
			if err != nil || id.Fingerprint() != c.o.Identity.Fingerprint() {
				t.Errorf("another authority: %v", err)
			}
			private(t, filepath.Join(dir, "authority.key"))
			if err := Restore(dir, nil, ""); err != nil {
				t.Errorf("once it is there: %v", err)
			}
		})
	}
	copied := t.TempDir()
	var none *ledger.NoCopyError
	if err := RestoreFrom(t.TempDir(), copied, files["ann"]); !errors.As(err, &none) || none.Hint() == "" {
		t.Errorf("from no copy: %v", err)
	}
	if err := os.WriteFile(filepath.Join(copied, "fleet.jsonl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := RestoreFrom(t.TempDir(), copied, files["ann"]); errors.Is(err, fs.ErrNotExist) || !errors.As(err, &lost) {
		t.Errorf("from a copy without the stream: %v", err)
	}
}
