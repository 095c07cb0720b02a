package depot

import (
	"errors"
	"os"

	"trysail/internal/tree"
)

// private makes the depot's directories, which nobody else may enter: originals
// hold files of whatever mode. An older version made them for all to read. A
// depot of another user is left as that user made it, and root uses none: its
// directories may be links, through which root would write and delete elsewhere.
func (d *Depot) private() error {
	err := tree.Private(d.dir)
	var other *tree.NotOursError
	if errors.As(err, &other) && other.Foreign && os.Geteuid() != 0 {
		err = nil
	}
	if err != nil {
		return d.full(err)
	}
	if err := os.MkdirAll(d.blobs(), 0o700); err != nil {
		return d.full(err)
	}
	return nil
}
