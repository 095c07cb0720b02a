package capture

import (
	"archive/tar"
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/tree"
)

// A tree comes back from its archive as it was: names of one file, holes, access lists,
// capabilities, attributes, and times to the nanosecond.
func TestSoftwareComesBackAsItWas(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	top, err := os.MkdirTemp("/var/tmp", "software-test-") // /tmp may hold no attributes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	was := filepath.Join(top, "was", "tool")
	out, err := exec.Command("sh", "-euc", `mkdir -p "$1"; cd "$1"; mkdir bin "empty
dir"; head -c 5000 /dev/urandom > bin/one; ln bin/one bin/two; ln bin/one zz; echo x > plain; chmod 4751 plain; ln -s bin/one link
		truncate -s 1G holes; printf begin | dd of=holes conv=notrunc status=none; printf middle | dd of=holes bs=1M seek=500 conv=notrunc status=none
		truncate -s 65536 all-hole; head -c 300000 /dev/zero > zeros
		touch -d '2021-03-04 05:06:07.123456789' bin/one; touch -d '2020-01-01 00:00:00.5' bin holes; touch -h -d '2019-01-01 00:00:00.25' link`, "sh", was).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, attributes := range map[string]map[string]string{
		"plain": {"user.origin": "vendor\x00=1", "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
		"bin": {
			"system.posix_acl_default": "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x05\x00\x92\x10\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff",
		},
	} {
		for key, value := range attributes {
			if err := unix.Setxattr(filepath.Join(was, name), key, []byte(value), 0); err != nil {
				t.Fatalf("%s: %v", key, err)
			}
		}
	}
	var archive bytes.Buffer
	zw, err := zstd.NewWriter(&archive)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(zw)
	kept := &softwareTree{kept: blueprint.Software{Path: was}, private: func(string) bool { return false }, secrets: map[string][]string{}, names: map[inode]string{}, seen: func(int, int64) {}}
	for _, err := range []error{kept.write(context.Background(), tw), tw.Close(), zw.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if size := int64(5000 + 2 + 1<<30 + 65536 + 300000); kept.kept.Size != size || kept.kept.Files != 7 {
		t.Errorf("%d files of %d bytes, not 7 of %d", kept.kept.Files, kept.kept.Size, size)
	}
	data := bytes.Clone(archive.Bytes())
	is := filepath.Join(top, "is")
	if err := os.Mkdir(is, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := tree.OpenRoot(is)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := build.Extract(context.Background(), root, bytes.NewReader(data), nil); err != nil {
		t.Fatal(err)
	}
	want, have := describeTree(t, was), describeTree(t, filepath.Join(is, was))
	if !maps.Equal(want, have) {
		for name := range want {
			if want[name] != have[name] {
				t.Errorf("%s:\n%+v\n%+v", name, want[name], have[name])
			}
		}
	}
	// A person's tar makes the same of it, but for the holes.
	zr, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer zr.Close()
	other := filepath.Join(top, "tar")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "--extract", "--directory", other, "--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*", "--warning=no-unknown-keyword")
	cmd.Stdin = zr
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	for name, x := range describeTree(t, filepath.Join(other, was)) {
		if x.blocks = want[name].blocks; x != want[name] {
			t.Errorf("tar makes of %s:\n%+v\n%+v", name, x, want[name])
		}
	}
}

// described is what a file has besides its bytes.
type described struct {
	mode                 uint32
	uid, gid             uint32
	links                uint64
	size, blocks         int64
	modified             time.Time
	acl, capability, own string
}

func describeTree(t *testing.T, top string) map[string]described {
	t.Helper()
	all := map[string]described{}
	err := filepath.WalkDir(top, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		get := func(name string) string {
			b := make([]byte, 1000)
			n, err := unix.Lgetxattr(p, name, b)
			if err != nil {
				return err.Error()
			}
			return string(b[:n])
		}
		x := described{st.Mode, st.Uid, st.Gid, uint64(st.Nlink), st.Size, st.Blocks, time.Unix(st.Mtim.Unix()).UTC(), get("system.posix_acl_default"), get("security.capability"), get("user.origin")}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			x.size, x.blocks = 0, 0
		}
		rel, err := filepath.Rel(top, p)
		all[rel] = x
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
