package evidence

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Tree is the Merkle tree over the lines of one stream. It is pure, and not safe
// for concurrent use.
type Tree struct {
	size   int64
	hashes []tlog.Hash // as stored by tlog.StoredHashes
}

func (t *Tree) reader() tlog.HashReader {
	return tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		list := make([]tlog.Hash, len(at))
		for i, x := range at {
			if x < 0 || x >= int64(len(t.hashes)) {
				return nil, fmt.Errorf("hash %d is not in a tree of %d lines", x, t.size)
			}
			list[i] = t.hashes[x]
		}
		return list, nil
	})
}

// Add appends a line.
func (t *Tree) Add(line []byte) error {
	h, err := tlog.StoredHashes(t.size, line, t.reader())
	if err != nil {
		return err
	}
	t.hashes, t.size = append(t.hashes, h...), t.size+1
	return nil
}

// Size is the number of lines.
func (t *Tree) Size() int64 { return t.size }

// Root is the hash over the first n lines.
func (t *Tree) Root(n int64) (tlog.Hash, error) {
	if n < 0 || n > t.size {
		return tlog.Hash{}, fmt.Errorf("a tree of %d lines has no first %d", t.size, n)
	}
	return tlog.TreeHash(n, t.reader())
}

// Extends proves that the first old lines are still the beginning.
func (t *Tree) Extends(old int64) (tlog.TreeProof, error) {
	return tlog.ProveTree(t.size, old, t.reader())
}

// Includes proves that line n (from 0) is among them.
func (t *Tree) Includes(n int64) (tlog.RecordProof, error) {
	return tlog.ProveRecord(t.size, n, t.reader())
}

// Checkpoint is the text that is signed: the stream, how long, and the root.
type Checkpoint struct {
	Stream string
	Size   int64
	Root   tlog.Hash
}

const origin = "trysail ledger "

// Text is the checkpoint in the form of transparency logs (C2SP tlog-checkpoint).
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s%s\n%d\n%s\n", origin, c.Stream, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// ReadNote reads a signed checkpoint, verified unless there is no key to do so.
func ReadNote(signed []byte, key note.Verifier) (*Checkpoint, error) {
	var known note.Verifiers = note.VerifierList()
	if key != nil {
		known = note.VerifierList(key)
	}
	n, err := note.Open(signed, known)
	var unverified *note.UnverifiedNoteError
	if key == nil && errors.As(err, &unverified) {
		n, err = unverified.Note, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := ParseCheckpoint(n.Text)
	return &c, err
}

// ParseCheckpoint reads what Text writes.
func ParseCheckpoint(text string) (Checkpoint, error) {
	wrong := fmt.Errorf("%.60q is not a checkpoint", text)
	f := strings.Split(text, "\n")
	if len(f) != 4 || f[3] != "" {
		return Checkpoint{}, wrong
	}
	stream, ok := strings.CutPrefix(f[0], origin)
	size, err := strconv.ParseInt(f[1], 10, 64)
	root, rerr := base64.StdEncoding.DecodeString(f[2])
	c := Checkpoint{Stream: stream, Size: size}
	if !ok || err != nil || rerr != nil || size < 0 || len(root) != tlog.HashSize || stream == "" {
		return Checkpoint{}, wrong
	}
	copy(c.Root[:], root)
	if c.Text() != text {
		return Checkpoint{}, wrong
	}
	return c, nil
}

// LedgerName is that of the key with which a fleet signs its ledger, by the fingerprint of
// its control, which everybody's link has.
func LedgerName(fingerprint string) string {
	return fmt.Sprintf("trysail.fleet.%.16s", fingerprint)
}

// SplitNotes takes apart signed notes that stand one after the other, with an empty line
// between them: the text of a note ends with one, and its signatures with another.
func SplitNotes(data []byte) ([][]byte, error) {
	var list [][]byte
	rest := string(data)
	for strings.TrimSpace(rest) != "" {
		rest = strings.TrimLeft(rest, "\n")
		text, after, ok := strings.Cut(rest, "\n\n")
		if !ok || !strings.HasPrefix(after, "— ") {
			return nil, fmt.Errorf("%.40q is no signed note", rest)
		}
		signatures, next, _ := strings.Cut(after, "\n\n")
		list = append(list, []byte(text+"\n\n"+strings.TrimRight(signatures, "\n")+"\n"))
		rest = next
	}
	if len(list) == 0 {
		return nil, errors.New("there is no signed note")
	}
	return list, nil
}
