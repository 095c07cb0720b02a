package vcs

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func rules() *entries {
	return &entries{uid: 1, gid: 2, time: time.Unix(1000000000, 0), most: bounds{files: 100, inner: 10, bytes: 1 << 20}}
}

func file(name string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}
}

func directory(name string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}
}

func symlink(name, to string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
}

func inner(list string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{headingRecord: `{"Inner":` + list + `}`}}
}

func counted(changed string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{headingRecord: changed}}
}

func stream(t testing.TB, list ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, h := range list {
		if h.Typeflag != tar.TypeXGlobalHeader {
			h.Format = tar.FormatPAX
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatalf("%+v: %v", h, err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestStreamPassesOnACheckout(t *testing.T) {
	list := []*tar.Header{
		inner(`["lib","lib/deep"]`),
		directory(".git"), file(".git/HEAD"), directory(".git/objects"), file(".git/objects/x"), file(".gitmodules"),
		directory("a"), file("a/b"), file("a/é"), file("a/\xff"), file("a-b"), symlink("b", "../../../etc/passwd"),
		directory("lib"), directory("lib/.git"), file("lib/.git/config"), directory("lib/deep"), directory("lib/deep/.git"), file("z\nz"),
	}
	var out bytes.Buffer
	if err := rules().check(bytes.NewReader(stream(t, list...)), &out); err != nil {
		t.Fatal(err)
	}
	tr := tar.NewReader(&out)
	for _, want := range list[1:] {
		h, err := tr.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != want.Name || h.Uid != 1 || h.Gid != 2 || h.Uname != "" || !h.ModTime.Equal(time.Unix(1000000000, 0)) || h.Linkname != want.Linkname || h.Mode != want.Mode {
			t.Errorf("%+v, not %+v", h, want)
		}
	}
}

func TestAttackStreamIsRefused(t *testing.T) {
	bare := rules()
	bare.bare = true
	mode := func(h *tar.Header, m int64) *tar.Header { h.Mode = m; return h }
	kind := func(h *tar.Header, k byte) *tar.Header { h.Typeflag = k; return h }
	big := file("big")
	big.Size = 2 << 20
	many := []*tar.Header{directory("d")}
	for i := range 101 {
		many = append(many, file("d/"+strings.Repeat("x", i+1)))
	}
	for name, list := range map[string][]*tar.Header{
		"absolute": {file("/etc/passwd")}, "parent": {file("../x")}, "parent inside": {directory("a"), file("a/../../x")}, "dot": {file("./a")}, "empty part": {directory("a"), file("a//b")},
		"twice": {file("a"), file("a")}, "unsorted": {file("b"), file("a")}, "below a file": {file("a"), file("a/b")}, "below a link": {symlink("a", "/etc"), file("a/b")}, "no directory": {file("a/b")},
		"directory again": {directory("a"), file("a/b"), directory("a")}, "after leaving": {directory("a"), file("a/x"), file("b"), file("a/y")},
		"hard link": {file("a"), kind(symlink("b", "a"), tar.TypeLink)}, "device": {kind(file("a"), tar.TypeBlock)}, "fifo": {kind(file("a"), tar.TypeFifo)},
		"setuid": {mode(file("a"), 0o4755)}, "setgid": {mode(directory("a"), 0o2755)}, "sticky": {mode(directory("a"), 0o1777)},
		"long part": {file(strings.Repeat("x", 256))}, "link to nothing": {symlink("a", "")},
		"git below": {directory("a"), directory("a/.git")}, "git as file": {file(".git")}, "git as link": {symlink(".git", "/root/.git")}, "git in git": {directory(".git"), directory(".git/.git")},
		"git in case": {directory(".GIT")}, "git with dot": {directory(".git.")}, "git with space": {directory(".git ")}, "git with dots": {directory(".git . .")}, "short name": {directory("git~1")}, "short name in case": {directory("GIT~1")},
		"ntfs stream": {directory(".git::$INDEX_ALLOCATION")}, "ntfs stream 2": {file(".Git:x")}, "hfs": {directory(".g\u200cit")}, "hfs 2": {directory("\ufeff.gi\u206at")}, "backslash": {file(`a\.git\hooks`)},
		"spelled below":    {directory("a"), file("a/.giT ")},
		"submodule's only": {inner(`["sub"]`), directory("sub"), directory("sub/x"), directory("sub/x/.git")}, "submodule .git": {inner(`[".git"]`)}, "submodule above": {inner(`["../x"]`)}, "submodule spelled": {inner(`["a/git~1/b"]`)}, "submodule svn": {inner(`[".svn"]`)},
		"submodules late": {file("a"), inner(`["b"]`)}, "submodules twice": {inner(`["a"]`), inner(`["b"]`)}, "submodules unreadable": {inner(`{`)}, "many submodules": {inner(`["a","b","c","d","e","f","g","h","i","j","k"]`)},
		"more and none": {counted(`{"More":1}`)}, "fewer than none": {counted(`{"Changed":["a"],"More":-1}`)},
		"hooks": {directory(".git"), directory(".git/hooks")}, "hooks in case": {directory(".git"), file(".git/Hooks")}, "link in git": {directory(".git"), symlink(".git/config", "/root/.gitconfig")},
		"large": {big}, "many": many,
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			tw := tar.NewWriter(&b)
			for _, h := range list {
				if err := tw.WriteHeader(h); err != nil {
					t.Fatal(err)
				}
			}
			b.Write(make([]byte, 1024)) // the end, although a file's bytes may be missing
			var refused *StreamError
			if err := rules().check(&b, io.Discard); !errors.As(err, &refused) {
				t.Errorf("%v", err)
			}
		})
	}
	if err := bare.check(bytes.NewReader(stream(t, directory("hooks"))), io.Discard); err == nil {
		t.Error("hooks of a bare repository")
	}
	// A stream that does not end.
	endless := io.MultiReader(bytes.NewReader(stream(t, file("a"))), zeros{})
	if err := rules().check(endless, io.Discard); err == nil {
		t.Error("a stream without end")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What check passes on keeps the rules, whatever it was given, and check passes it on again.
func FuzzCheckedStream(f *testing.F) {
	f.Add(stream(f, inner(`["lib"]`), directory(".git"), file(".git/HEAD"), directory("lib"), directory("lib/.git"), symlink("link", "/etc")))
	f.Add(stream(f, file("a"), file("../b")))
	f.Add(stream(f, directory("a"), file("a/.GIT ")))
	f.Add([]byte("no tar"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		e := rules()
		if err := e.check(bytes.NewReader(data), &out); err != nil {
			return
		}
		kinds := map[string]byte{".": tar.TypeDir}
		tr := tar.NewReader(bytes.NewReader(out.Bytes()))
		for {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("what was passed on cannot be read: %v", err)
			}
			name := strings.TrimSuffix(h.Name, "/")
			if kinds[name] != 0 || name == "" || strings.HasPrefix(name, "/") {
				t.Fatalf("%q", h.Name)
			}
			kinds[name] = h.Typeflag
			at := "."
			for part := range strings.SplitSeq(name, "/") {
				if part == ".." || part == "." || part == "" || kinds[at] != tar.TypeDir {
					t.Fatalf("%q is below %q", h.Name, at)
				}
				if part != ".git" && strings.EqualFold(strings.TrimRight(part, ". "), ".git") {
					t.Fatalf("%q", h.Name)
				}
				at = strings.TrimPrefix(at+"/"+part, "./")
			}
			if h.Uid != 1 || h.Gid != 2 || h.Mode&^0o777 != 0 || !strings.Contains("\x00025", string(h.Typeflag)) {
				t.Fatalf("%+v", h)
			}
		}
		if len(e.head.Inner) == 0 {
			var again bytes.Buffer
			if err := rules().check(&out, &again); err != nil {
				t.Fatalf("not twice: %v", err)
			}
		}
	})
}

func FuzzSteadyIndex(f *testing.F) {
	f.Add([]byte("DIRC\x00\x00\x00\x02\x00\x00\x00\x01" + strings.Repeat("\x00", 62) + "file\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= 12 {
			_ = clearEntries(data, 20) // an error is an answer
		}
	})
}

func TestOwnEnvironment(t *testing.T) {
	got := ownEnvironment([]string{"A=b", "GIT_DIR=/x", "GIT_CONFIG_PARAMETERS='a'='b'", "GIT_EXTERNAL_DIFF=x", "LC_ALL=de_DE.UTF-8", "GIT_SSL_CAINFO=/y", "GIT_AUTHOR_NAME=a"})
	if s := strings.Join(got, " "); s != "A=b GIT_SSL_CAINFO=/y GIT_AUTHOR_NAME=a LC_ALL=C.UTF-8 GIT_TERMINAL_PROMPT=0" {
		t.Error(s)
	}
}
