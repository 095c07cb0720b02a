package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// OldError says that a ledger cannot begin again where an etcd lies that is not
// this control's alone.
type OldError struct{ Dir, Is string }

func (e *OldError) Error() string { return "the old etcd in " + e.Dir + " " + e.Is }

// Hint says what to do.
func (e *OldError) Hint() string {
	return "if no majority of its controls comes back: see that none of them runs, move " + e.Dir + " away, and say this again (docs/controls.md)"
}

// Alone refuses the directory of an embedded etcd that is a member of several: it
// would wait for the others for ever, before anybody could look what it holds.
// It writes nothing.
func Alone(dir string) error {
	file := filepath.Join(dir, "data/member/snap/db")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := bbolt.Open(file, 0, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if errors.Is(err, berrors.ErrTimeout) {
		return &OldError{dir, "is in use"}
	}
	if err != nil {
		return &OldError{dir, "cannot be read: " + err.Error()}
	}
	members := 0
	err = db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte("members")); b != nil {
			return b.ForEach(func([]byte, []byte) error { members++; return nil })
		}
		return nil
	})
	switch err := errors.Join(err, db.Close()); {
	case err != nil:
		return &OldError{dir, "cannot be read: " + err.Error()}
	case members > 1:
		return &OldError{dir, fmt.Sprintf("is of %d controls, and waits for them", members)}
	}
	return nil
}
