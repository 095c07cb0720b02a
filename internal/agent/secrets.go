package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"trysail/internal/api"
	"trysail/internal/mask"
	"trysail/internal/tree"
)

// NoSecretError says that a step wants a secret that this machine does not keep.
type NoSecretError struct{ Name, File string }

func (e *NoSecretError) Error() string {
	return fmt.Sprintf("secret %s is not on this machine: put it into %s, mode 0600", e.Name, e.File)
}

// maxSecret bounds one secret, in bytes: more does not fit into a variable with the rest.
const maxSecret = 64 << 10

// secrets reads the values of a step's secrets from this machine's disk. They
// are never sent anywhere: each machine that may run such a step is given them
// by a person. A file that others can read is no secret.
func (a *Agent) secrets(names []string) (map[string]string, error) {
	list := map[string]string{}
	for _, name := range names {
		if !isName(name) {
			return nil, fmt.Errorf("%q is no name of a secret", name)
		}
		file := filepath.Join(a.o.Dir, "secrets", name)
		value, err := secretFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &NoSecretError{name, file}
		}
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", name, err)
		}
		list[name] = value
	}
	return list, nil
}

// secretFile reads a secret from a file that nobody else can read.
func secretFile(file string) (string, error) {
	f, err := tree.OpenFile(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("it can be read by others: chmod 600 %s", file)
	}
	if info.Size() > maxSecret {
		return "", &tree.LimitError{Path: file, What: "bytes", Limit: maxSecret}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecret))
	return strings.TrimRight(string(data), "\n"), err
}

// isName tells whether what control calls something may be a file's name here: no
// path leads out of the directory that it is for.
func isName(s string) bool { return s != "." && filepath.IsLocal(s) && filepath.Base(s) == s }

// maskOf hides a step's secrets in everything that is said of it.
func maskOf(secrets map[string]string) *mask.Mask {
	return mask.New(slices.Collect(maps.Values(secrets)))
}

// maskedError says what another does, with secrets hidden.
type maskedError struct {
	text string
	err  error
}

func (e *maskedError) Error() string { return e.text }
func (e *maskedError) Unwrap() error { return e.err }

// hide hides secrets in how a step ended: in the report, which the ledger keeps for ever,
// and in the error. Names of artifacts are what people take them by, and stay.
func hide(m *mask.Mask, r *api.Report, err error) error {
	if err != nil {
		return &maskedError{m.String(err.Error()), err}
	}
	r.Why = m.String(r.Why)
	for i, name := range r.Failing {
		r.Failing[i] = m.String(name)
	}
	return nil
}
