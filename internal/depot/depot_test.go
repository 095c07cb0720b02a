package depot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

const missing = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

func open(t testing.TB, dir string) *Depot {
	t.Helper()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func fresh(t testing.TB) *Depot {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "depot"))
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(h[:])
}

func noise(seed int64, n int) []byte {
	data := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(data)
	return data
}

// fill puts n originals of a size and names them; the names are deb/0 and so on.
func fill(t testing.TB, d *Depot, ref string, n, size int) []Item {
	t.Helper()
	var items []Item
	for i := range n {
		data := noise(int64(i), size)
		dg, err := d.PutBytes(context.Background(), data)
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, Item{fmt.Sprintf("deb/%d", i), dg, int64(size)})
	}
	if _, err := d.Tag(context.Background(), ref, time.Unix(1_800_000_000, 0), items); err != nil {
		t.Fatal(err)
	}
	return items
}

// TestStorage is the behaviour of a depot, whatever stands under it: a fresh
// directory, one that another process uses as well, and one that was pulled.
func TestStorage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shared")
	for name, open2 := range map[string]func(t *testing.T) (put, get *Depot){
		"one":        func(t *testing.T) (*Depot, *Depot) { d := fresh(t); return d, d },
		"two":        func(t *testing.T) (*Depot, *Depot) { return open(t, dir), open(t, dir) },
		"small disk": func(t *testing.T) (*Depot, *Depot) { d := open(t, tmpfs(t, "8m")); return d, d },
	} {
		t.Run(name, func(t *testing.T) {
			put, get := open2(t)
			testStorage(t, put, get)
		})
	}
}

func testStorage(t *testing.T, put, get *Depot) {
	ctx := context.Background()
	for _, data := range [][]byte{nil, []byte("x"), noise(1, 1<<20)} {
		dg, n, err := put.Put(ctx, iotest.HalfReader(bytes.NewReader(data)))
		if err != nil || dg != sum(data) || n != int64(len(data)) {
			t.Fatalf("put %d bytes: %s %d %v", len(data), dg, n, err)
		}
		if !get.Has(dg) {
			t.Errorf("%s is not there", dg)
		}
		if got, err := get.ReadAll(ctx, dg, int64(len(data))); err != nil || !bytes.Equal(got, data) {
			t.Errorf("read back: %d bytes, %v", len(got), err)
		}
		if again, err := put.PutBytes(ctx, data); err != nil || again != dg {
			t.Errorf("put again: %s %v", again, err)
		}
	}
	if _, err := get.ReadAll(ctx, sum([]byte("x")), 0); err == nil {
		t.Error("read more than the limit")
	}
	if _, err := put.PutExpected(ctx, strings.NewReader("new"), sum([]byte("other"))); !isDigest(err) {
		t.Errorf("other bytes than expected: %v", err)
	}
	if put.Has(sum([]byte("new"))) {
		t.Error("refused bytes are kept")
	}
	if n, err := put.PutExpected(ctx, strings.NewReader("new"), sum([]byte("new"))); err != nil || n != 3 {
		t.Errorf("expected bytes: %d %v", n, err)
	}
	var nf *NotFoundError
	if _, err := get.Get(ctx, missing); !errors.As(err, &nf) || nf.Hint() == "" || get.Has(missing) {
		t.Errorf("what is not there: %v", err)
	}
	for _, bad := range []string{"", "sha256:", "sha256:../../oci-layout", "../oci-layout", strings.ToUpper(missing), "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		if _, err := get.Get(ctx, bad); err == nil || errors.As(err, &nf) || get.Has(bad) {
			t.Errorf("digest %q: %v", bad, err)
		}
	}
	torn := errors.New("connection lost")
	if _, _, err := put.Put(ctx, iotest.ErrReader(torn)); !errors.Is(err, torn) {
		t.Errorf("a stream that breaks: %v", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := put.Put(gone, strings.NewReader("late")); !errors.Is(err, context.Canceled) || put.Has(sum([]byte("late"))) {
		t.Errorf("cancelled: %v", err)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("file"), 0o600); err != nil {
		t.Fatal(err)
	}
	if dg, n, err := put.PutFile(ctx, file); err != nil || dg != sum([]byte("file")) || n != 4 {
		t.Errorf("a file: %s %d %v", dg, n, err)
	}

	// Names.
	created := time.Date(2026, 11, 3, 8, 0, 0, 0, time.FixedZone("", 3600))
	items := []Item{{"deb/a b.deb", sum([]byte("x")), 1}, {"config/etc/ünï", sum(nil), 0}}
	dg, err := put.Tag(ctx, "blueprint/a", created, items)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"blueprint/a", "blueprint/a@" + dg} {
		r, err := get.Resolve(ctx, name)
		if err != nil || r.Digest != dg || !r.Created.Equal(created) || !slices.Equal(r.Items, items) || r.Size() != 1 || r.Name != "blueprint/a" {
			t.Errorf("resolve %s: %+v %v", name, r, err)
		}
	}
	if same, err := put.Tag(ctx, "blueprint/a", created, items); err != nil || same != dg {
		t.Errorf("the same set named again: %s, was %s (%v)", same, dg, err)
	}
	if _, err := put.Tag(ctx, "blueprint/b", created, items[:1]); err != nil {
		t.Fatal(err)
	}
	next, err := put.Tag(ctx, "blueprint/a", created, items[1:])
	if err != nil || next == dg {
		t.Errorf("another set of that name: %s %v", next, err)
	}
	if r, err := get.Resolve(ctx, "blueprint/a"); err != nil || r.Digest != next {
		t.Errorf("the name after it was given anew: %+v %v", r, err)
	}
	if r, err := get.Resolve(ctx, "blueprint/a@"+dg); err != nil || r.Digest != dg || r.Name != "blueprint/a" {
		t.Errorf("the earlier set by its digest: %+v %v", r, err)
	}
	none := "sha256:" + strings.Repeat("0", 64)
	if _, err := get.Resolve(ctx, "blueprint/a@"+none); !errors.As(err, &nf) || !strings.Contains(err.Error(), none) {
		t.Errorf("a set that was never there: %v", err)
	}
	if _, err := get.Resolve(ctx, "blueprint/z"); !errors.As(err, &nf) {
		t.Errorf("an unknown name: %v", err)
	}
	var names []string
	list, err := get.List(ctx)
	for _, r := range list {
		names = append(names, r.Name)
	}
	if err != nil || !slices.Equal(names, []string{"blueprint/a", "blueprint/a@" + dg, "blueprint/b"}) {
		t.Errorf("list %q %v", names, err)
	}
	if back, err := put.Tag(ctx, "blueprint/a", created, items); err != nil || back != dg {
		t.Errorf("the earlier set named again: %s %v", back, err)
	}
	if err := put.Untag("blueprint/a@" + next); err != nil {
		t.Error(err)
	}
	if err := put.Untag("blueprint/a@" + next); !errors.As(err, &nf) {
		t.Errorf("a set let go twice: %v", err)
	}
	if r, err := get.Resolve(ctx, "blueprint/a"); err != nil || r.Digest != dg {
		t.Errorf("the other set after that: %+v %v", r, err)
	}
	if err := put.Untag("blueprint/b"); err != nil {
		t.Error(err)
	}
	if _, err := get.Resolve(ctx, "blueprint/b"); !errors.As(err, &nf) {
		t.Errorf("an untagged name: %v", err)
	}
	if dg, err := put.Tag(ctx, "empty", created, nil); err != nil {
		t.Error(err)
	} else if raw, err := get.ReadAll(ctx, dg, 1<<20); err != nil || !strings.Contains(string(raw), `"manifests":[]`) {
		t.Errorf("an empty set is %s, which is no OCI index (%v)", raw, err)
	}
	for name, c := range map[string]struct {
		ref   string
		items []Item
	}{
		"a name that climbs":  {"../x", items},
		"a name in capitals":  {"Blueprint", items},
		"a name with @":       {"a@b", items},
		"an item not there":   {"a", []Item{{"x", missing, 0}}},
		"an item that climbs": {"a", []Item{{"config/../../x", items[0].Digest, 1}}},
		"an absolute item":    {"a", []Item{{"/etc/x", items[0].Digest, 1}}},
		"an item with a line": {"a", []Item{{"x\ny", items[0].Digest, 1}}},
		"an item without one": {"a", []Item{{"", items[0].Digest, 1}}},
		"an item of no sum":   {"a", []Item{{"x", "sha256:00", 1}}},
		"an item twice":       {"a", []Item{{"x", items[0].Digest, 1}, {"x", items[1].Digest, 0}}},
	} {
		if _, err := put.Tag(ctx, c.ref, created, c.items); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if left, err := filepath.Glob(filepath.Join(put.blobs(), ".new-*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
	rep, err := get.Verify(ctx, nil)
	if err != nil || len(rep.Problems) != 0 || rep.Originals == 0 {
		t.Errorf("verify: %+v %v", rep, err)
	}
}

func isDigest(err error) bool {
	var de *DigestError
	return errors.As(err, &de) && de.Hint() != ""
}

func TestTornIndex(t *testing.T) {
	ctx := context.Background()
	d := fresh(t)
	items := fill(t, d, "a", 1, 10)
	file := filepath.Join(d.Dir(), v1.ImageIndexFile)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"torn": whole[:len(whole)/2], "empty": nil, "zeros": make([]byte, len(whole)), "doubled": append(bytes.Clone(whole), whole...), "something else": []byte("{}"), "null": []byte("null")} {
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		_, rerr := d.Resolve(ctx, "a")
		_, lerr := d.List(ctx)
		_, verr := d.Verify(ctx, nil)
		_, _, perr := d.Prune(ctx, time.Now().Add(time.Hour*24))
		_, terr := d.Tag(ctx, "b", time.Now(), items)
		for what, err := range map[string]error{"resolve": rerr, "list": lerr, "verify": verr, "prune": perr, "tag": terr} {
			var ie *IndexError
			if !errors.As(err, &ie) || ie.Hint() == "" {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: the evidence was overwritten", name)
		}
	}
	// As the hint says: moved away, the originals are still there.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if n, _, err := d.Prune(ctx, time.Now().Add(24*time.Hour)); err == nil || n != 0 {
		t.Errorf("without an index, %d blobs were pruned (%v)", n, err)
	}
	if _, err := d.Tag(ctx, "a", time.Now(), items); err != nil {
		t.Error(err)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign")
	other := filepath.Join(dir, "other")
	damaged := filepath.Join(dir, "damaged")
	for name, text := range map[string]string{foreign + "/notes.txt": "x", other + "/oci-layout": `{"imageLayoutVersion":"2.0.0"}`, damaged + "/oci-layout": "{", dir + "/file": "x"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{foreign, other, damaged, filepath.Join(dir, "file")} {
		if d, err := Open(p); err == nil {
			t.Errorf("opened %s: %+v", p, d)
		}
	}
	if names, err := os.ReadDir(foreign); err != nil || len(names) != 1 {
		t.Errorf("a refused directory was written to: %v %v", names, err)
	}
	d := open(t, filepath.Join(dir, "new/depot"))
	if again := open(t, d.Dir()); again.Dir() != d.Dir() {
		t.Error("opened again it is elsewhere")
	}
	// Begun and not finished: only blobs is there.
	if err := os.MkdirAll(filepath.Join(dir, "begun/blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	open(t, filepath.Join(dir, "begun"))
}

func TestConcurrentWriters(t *testing.T) {
	ctx := context.Background()
	d := fresh(t)
	data := noise(3, 1<<18)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			dg, _, err := d.Put(ctx, bytes.NewReader(data))
			if err == nil {
				_, err = d.Tag(ctx, fmt.Sprintf("ref/%d", i), time.Now(), []Item{{"x", dg, 0}})
			}
			if err == nil {
				_, err = d.ReadAll(ctx, dg, 1<<20)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := d.List(ctx); err != nil || len(list) != 16 {
		t.Errorf("%d references (%v), want 16", len(list), err)
	}
}

// TestTwoProcesses runs this test again as another process on the same depot.
func TestTwoProcesses(t *testing.T) {
	ctx := context.Background()
	const each = 25
	work := func(d *Depot, who string) {
		for i := range each {
			dg, err := d.PutBytes(ctx, noise(int64(i), 1000))
			if err == nil {
				_, err = d.Tag(ctx, fmt.Sprintf("%s/%d", who, i), time.Now(), []Item{{"x", dg, 0}})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if dir := os.Getenv("TRYSAIL_TEST_DEPOT"); dir != "" {
		work(open(t, dir), "child")
		return
	}
	d := fresh(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestTwoProcesses$", "-test.v")
	cmd.Env = append(os.Environ(), "TRYSAIL_TEST_DEPOT="+d.Dir())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	work(d, "parent")
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "PASS") {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if list, err := d.List(ctx); err != nil || len(list) != 2*each {
		t.Errorf("%d references (%v), want %d", len(list), err, 2*each)
	}
}

// tmpfs mounts a small disk, for as long as the test lasts.
func tmpfs(t testing.TB, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mounting a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullDisk: a full disk is named as such, what was stored stays, and nothing
// half written gets a name.
func TestFullDisk(t *testing.T) {
	ctx := context.Background()
	d := open(t, tmpfs(t, "1m"))
	items := fill(t, d, "a", 3, 100_000)
	_, _, err := d.Put(ctx, bytes.NewReader(noise(9, 2<<20)))
	var fe *FullError
	if !errors.As(err, &fe) || !errors.Is(err, unix.ENOSPC) || fe.Hint() == "" || fe.Dir != d.Dir() {
		t.Errorf("a blob that does not fit: %v", err)
	}
	for {
		if _, err = d.PutBytes(ctx, noise(time.Now().UnixNano(), 1000)); err != nil {
			break
		}
	}
	if !errors.As(err, &fe) {
		t.Errorf("the disk is full to the brim: %v", err)
	}
	if _, err := d.Tag(ctx, "b", time.Now(), items); !errors.As(err, &fe) {
		t.Errorf("a name on a full disk: %v", err)
	}
	if r, err := d.Resolve(ctx, "a"); err != nil || !slices.Equal(r.Items, items) {
		t.Errorf("what was stored: %+v %v", r, err)
	}
	rep, err := d.Verify(ctx, nil)
	if err != nil || len(rep.Problems) != 0 {
		t.Errorf("verify: %+v %v", rep, err)
	}
	if left, err := filepath.Glob(filepath.Join(d.blobs(), ".new-*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}

// TestManifests: many originals are split over manifests that registries take.
func TestManifests(t *testing.T) {
	ctx := context.Background()
	d := fresh(t)
	dg, err := d.PutBytes(ctx, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]int{1: 1, maxLayers: 1, maxLayers + 1: 2, 2500: 25} {
		var items []Item
		for i := range n {
			items = append(items, Item{fmt.Sprintf("software/%s/%d", strings.Repeat("long-", 200), i), dg, 1})
		}
		top, err := d.Tag(ctx, "many", time.Now(), items)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := d.Resolve(ctx, "many"); err != nil || !slices.Equal(r.Items, items) {
			t.Errorf("%d items come back as %d (%v)", n, len(r.Items), err)
		}
		list, err := d.manifests(ctx, top)
		if err != nil || len(list) != want+2 { // the index and the empty config
			t.Errorf("%d items are in %d manifests (%v), want %d", n, len(list)-2, err, want)
		}
		for _, m := range list {
			raw, err := d.ReadAll(ctx, m, maxManifest)
			if err != nil || len(raw) > maxManifest {
				t.Errorf("manifest of %d bytes: %v", len(raw), err)
			}
			var v v1.Manifest
			if err := json.Unmarshal(raw, &v); err != nil || len(v.Layers) > maxLayers {
				t.Errorf("manifest with %d layers: %v", len(v.Layers), err)
			}
		}
	}
	var items []Item
	for i := range maxLayers {
		items = append(items, Item{strings.Repeat("x", 50_000) + fmt.Sprint(i), dg, 1})
	}
	if _, err := d.Tag(ctx, "huge", time.Now(), items); err == nil || !strings.Contains(err.Error(), "larger than registries take") {
		t.Errorf("a manifest over the limit: %v", err)
	}
}
