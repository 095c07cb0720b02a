package cli

import (
	"path/filepath"

	"trysail/internal/notify"
)

// strangersFileError says that a file which names programs to run, or secrets to send,
// may be a stranger's.
type strangersFileError struct{ file, why string }

func (e *strangersFileError) Error() string { return "refused to act on " + e.file + ": " + e.why }

// Hint says what to do.
func (e *strangersFileError) Hint() string {
	return "read it, copy it to a directory that only you can write, and name the copy"
}

// ownFile gives the path of a file, without links, if nobody but root and the caller can have
// written it: it says which programs run, or to whom secrets go, with the caller's rights.
func (p people) ownFile(file string) (string, error) {
	name, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	if name, err = filepath.EvalSymlinks(name); err != nil {
		return "", err
	}
	for d := name; ; d = filepath.Dir(d) {
		why, err := p.writer(d, d != name)
		switch {
		case err != nil:
			return "", err
		case why != "":
			return "", &strangersFileError{file, why}
		case d == "/":
			return name, nil
		}
	}
}

// readNotify reads who is told what. The file names secrets, and where they are sent.
func readNotify(file string) (*notify.Config, error) {
	name, err := callers().ownFile(file)
	if err != nil {
		return nil, err
	}
	return notify.Load(name)
}
