package witness

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trysail/internal/strict"
)

func kept(t testing.TB) string {
	t.Helper()
	return string(sign(t, "4.2", 3, 'a')) + "\n" + string(sign(t, "4.2", 17, 'a')) + "\n" + string(sign(t, "4.2", 18, 'a'))
}

func TestRefusedNotes(t *testing.T) {
	good := kept(t)
	one := string(sign(t, "4.2", 3, 'a'))
	signature := one[strings.Index(one, "— "):]
	for _, x := range []struct {
		name, old, new string // of good
		line           int
		what           string
	}{
		{"empty", good, "", 0, "empty"},
		{"torn", good, good[:len(good)-1], 17, "torn"},
		{"not UTF-8", "ledger release", "ledger \xff", 1, "UTF-8"},
		{"CRLF", "\n17\n", "\r\n17\n", 7, "CR"},
		{"no signature", signature, "", 1, ""},
		{"no signature at the end", good, good + "\n" + one[:strings.Index(one, "\n\n")+1], 19, "without a signature"},
		{"half a signature", good, good[:len(good)-20] + "\n", 13, ""},
		{"no checkpoint", "\n17\n", "\nx\n", 7, "not a checkpoint"},
		{"another form of a number", "\n17\n", "\n017\n", 7, "not a checkpoint"},
		{"a line more", "\n17\n", "\n17\nmore\n", 7, "not a checkpoint"},
		{"of another release", "release.4.2\n17", "release.4.3\n17", 7, "not of release 4.2"},
		{"of another stream", "release.4.2\n17", "notices\n17", 7, "not of release 4.2"},
		{"as long as the last", "\n18\n", "\n17\n", 13, "follows one of 17"},
		{"shorter than the last", "\n18\n", "\n4\n", 13, "follows one of 17"},
		{"two empty lines", "\n\ntrysail", "\n\n\ntrysail", 7, ""},
		{"an empty line at the end", good, good + "\n", 19, "without a signature"},
		{"no empty line", signature + "\n", signature, 1, ""},
		{"a word before", good, "kept:\n" + good, 1, ""},
		{"many signatures", signature, strings.Repeat(signature, 200), 1, "16384 is the most"},
	} {
		text := strings.Replace(good, x.old, x.new, 1)
		_, err := parse("f.note", "4.2", []byte(text))
		var e *strict.Error
		if !errors.As(err, &e) || !strings.Contains(e.What, x.what) || e.Line != x.line || e.Hint() == "" || e.File != "f.note" {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

// The new checkpoint is read as strictly as those that are kept.
func TestRefusedNewNote(t *testing.T) {
	dir := t.TempDir()
	must(t, "/", "git", "init", "--quiet", dir)
	for name, text := range map[string]string{
		"nothing": "", "two": kept(t), "of another release": string(sign(t, "4.3", 3, 'a')), "torn": strings.TrimSuffix(string(sign(t, "4.2", 3, 'a')), "\n"),
	} {
		var e *strict.Error
		if _, err := Commit(t.Context(), dir, "4.2", []byte(text)); !errors.As(err, &e) || e.Hint() == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is wrong in the working copy is told by file and line.
func TestCommittedSaysWhere(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, folder, "4.2.note")
	put(t, name, strings.Replace(kept(t), "\n17\n", "\n1\n", 1), 0o644)
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Committed(dir, "4.2"); err == nil || err.Error() != real+":7: a checkpoint of 1 events follows one of 3" {
		t.Error(err)
	}
	if err := os.Truncate(name, maxFile+1); err != nil {
		t.Fatal(err)
	}
	var e *strict.Error
	if _, err := Committed(dir, "4.2"); !errors.As(err, &e) || !strings.Contains(e.What, "too large") {
		t.Error(err)
	}
}

func FuzzNotes(f *testing.F) {
	good := kept(f)
	f.Add([]byte(good))
	for line := range strings.Lines(good) {
		f.Add([]byte(strings.Replace(good, line, "", 1)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parse("f.note", "4.2", data)
		if err != nil {
			var e *strict.Error
			if !errors.As(err, &e) || e.Hint() == "" {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		// What is read is all there is, and each is readable alone.
		var notes [][]byte
		for _, k := range list {
			notes = append(notes, k.Note)
			if !bytes.HasPrefix(bytes.Join(bytes.SplitAfter(data, []byte("\n"))[k.Line-1:], nil), k.Note) {
				t.Fatalf("%q does not begin at line %d", k.Note, k.Line)
			}
			if one, err := parse("f.note", "4.2", k.Note); err != nil || len(one) != 1 || one[0].Checkpoint != k.Checkpoint {
				t.Fatalf("%q alone: %v", k.Note, err)
			}
		}
		if !bytes.Equal(bytes.Join(notes, []byte("\n")), data) {
			t.Fatalf("%q is read as %q", data, notes)
		}
	})
}
