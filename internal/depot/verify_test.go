package depot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// damage changes a blob behind the depot's back.
func damage(t testing.TB, d *Depot, dg string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(d.path(dg))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(d.path(dg)), os.WriteFile(d.path(dg), change(data), 0o444)); err != nil {
		t.Fatal(err)
	}
}

// TestReadsAreVerified: whichever bit of an original flips, every way to read it
// says so, and storing the right bytes again mends it.
func TestReadsAreVerified(t *testing.T) {
	ctx := context.Background()
	data := noise(2, 300)
	for name, change := range map[string]func([]byte) []byte{
		"first bit": func(b []byte) []byte { b[0] ^= 1; return b },
		"last bit":  func(b []byte) []byte { b[len(b)-1] ^= 0x80; return b },
		"torn":      func(b []byte) []byte { return b[:len(b)/2] },
		"empty":     func(b []byte) []byte { return nil },
		"longer":    func(b []byte) []byte { return append(b, 0) },
	} {
		d := fresh(t)
		dg, err := d.PutBytes(ctx, data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Tag(ctx, "a", time.Now(), []Item{{"x", dg, 300}}); err != nil {
			t.Fatal(err)
		}
		damage(t, d, dg, change)
		for how, read := range map[string]func() error{
			"ReadAll": func() error { _, err := d.ReadAll(ctx, dg, 1<<20); return err },
			"Get": func() error {
				r, err := d.Get(ctx, dg)
				if err != nil {
					return err
				}
				defer r.Close()
				_, err = io.Copy(io.Discard, r)
				if _, again := r.Read(make([]byte, 1)); !isDigest(again) {
					t.Errorf("%s: after the error: %v", name, again)
				}
				return err
			},
			"byte by byte": func() error {
				r, err := d.Get(ctx, dg)
				if err != nil {
					return err
				}
				defer r.Close()
				_, err = io.Copy(io.Discard, iotest.OneByteReader(r))
				return err
			},
			"Push": func() error { _, err := d.Push(ctx, "a", "127.0.0.1:1/x:y", TransferOptions{}); return err },
		} {
			if err := read(); !isDigest(err) {
				t.Errorf("%s: %s: %v", name, how, err)
			}
		}
		rep, err := d.Verify(ctx, nil)
		if err != nil || len(rep.Problems) != 1 || rep.Problems[0].Digest != dg || !slices.Equal(rep.Problems[0].Names, []string{"a: x"}) {
			t.Errorf("%s: verify: %+v %v", name, rep, err)
		}
		if _, err := d.PutBytes(ctx, data); err != nil {
			t.Error(err)
		}
		if got, err := d.ReadAll(ctx, dg, 1<<20); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: storing it again did not mend it: %v", name, err)
		}
	}
}

// TestDamagedManifests: a reference that cannot be read is named, and the rest
// of the depot is still checked.
func TestDamagedManifests(t *testing.T) {
	ctx := context.Background()
	d := fresh(t)
	items := fill(t, d, "good", 2, 10)
	dg, err := d.Tag(ctx, "bad", time.Now(), items[:1])
	if err != nil {
		t.Fatal(err)
	}
	damage(t, d, dg, func(b []byte) []byte { b[10] ^= 1; return b })
	if _, err := d.Resolve(ctx, "bad"); !isDigest(err) {
		t.Errorf("resolve: %v", err)
	}
	if err := os.Remove(d.path(items[1].Digest)); err != nil {
		t.Fatal(err)
	}
	rep, err := d.Verify(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	var what []string
	for _, p := range rep.Problems {
		what = append(what, strings.Join(p.Names, ",")+"="+p.Digest)
	}
	for _, want := range []string{"bad=" + dg, "good: deb/1=" + items[1].Digest} {
		if !slices.Contains(what, want) {
			t.Errorf("problems %q lack %q", what, want)
		}
	}
	if _, _, err := d.Prune(ctx, time.Now().Add(24*time.Hour)); err == nil {
		t.Error("pruned although a reference cannot be read")
	}
}

func TestPrune(t *testing.T) {
	ctx := context.Background()
	d := fresh(t)
	items := fill(t, d, "a", 3, 100)
	if _, err := d.Tag(ctx, "b", time.Now(), items[2:]); err != nil {
		t.Fatal(err)
	}
	loose, err := d.PutBytes(ctx, []byte("no reference names it"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.blobs(), ".new-killed"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if n, size, err := d.Prune(ctx, now.Add(30*time.Minute)); err != nil || n != 0 || size != 0 {
		t.Errorf("a running capture's blobs: %d removed (%v)", n, err)
	}
	if n, size, err := d.Prune(ctx, now.Add(2*time.Hour)); err != nil || n != 2 || size != int64(len("no reference names it")+len("half")) || d.Has(loose) {
		t.Errorf("%d removed, %d bytes (%v)", n, size, err)
	}
	if err := d.Untag("a"); err != nil {
		t.Fatal(err)
	}
	// Its two originals, its manifest and its index; the third is b's.
	if n, _, err := d.Prune(ctx, now.Add(2*time.Hour)); err != nil || n != 4 {
		t.Errorf("%d removed (%v), want 4", n, err)
	}
	if d.Has(items[0].Digest) || !d.Has(items[2].Digest) {
		t.Error("pruned the wrong ones")
	}
	if rep, err := d.Verify(ctx, nil); err != nil || len(rep.Problems) != 0 || rep.Unreferenced != 0 {
		t.Errorf("verify: %+v %v", rep, err)
	}
	// An old blob that somebody stores again is theirs to name.
	old, err := d.PutBytes(ctx, []byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(d.path(old), now.Add(-5*time.Hour), now.Add(-5*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PutBytes(ctx, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if n, _, err := d.Prune(ctx, now.Add(time.Minute)); err != nil || n != 0 || !d.Has(old) {
		t.Errorf("%d removed (%v): stored again, and pruned", n, err)
	}
}

// TestSetAside: a damaged blob goes out of the way and can be put again; one that
// is whole stays.
func TestSetAside(t *testing.T) {
	ctx := context.Background()
	d, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dg, err := d.PutBytes(ctx, []byte("original"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SetAside(ctx, dg); err != nil || !d.Has(dg) {
		t.Errorf("a blob that is whole: %v", err)
	}
	p := d.path(dg)
	if err := errors.Join(os.Chmod(p, 0o600), os.WriteFile(p, []byte("0riginal"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := d.SetAside(ctx, dg); err != nil || d.Has(dg) {
		t.Errorf("a damaged blob: %v", err)
	}
	if again, err := d.PutBytes(ctx, []byte("original")); err != nil || again != dg {
		t.Errorf("put again: %s %v", again, err)
	}
	if r, err := d.Verify(ctx, nil); err != nil || len(r.Problems) != 0 {
		t.Errorf("after that: %+v %v", r, err)
	}
}
