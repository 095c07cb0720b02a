package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// NoSecretError says that a step wants a secret that this machine does not keep.
type NoSecretError struct{ Name, File string }

func (e *NoSecretError) Error() string {
	return fmt.Sprintf("secret %s is not on this machine: put it into %s, mode 0600", e.Name, e.File)
}

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
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &NoSecretError{name, file}
		}
		if err != nil {
			return nil, err
		}
		if info.Mode().Perm()&0o077 != 0 {
			return nil, fmt.Errorf("secret %s can be read by others: chmod 600 %s", name, file)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		list[name] = strings.TrimRight(string(data), "\n")
	}
	return list, nil
}

// isName tells whether what control calls something may be a file's name here: no
// path leads out of the directory that it is for.
func isName(s string) bool { return s != "." && filepath.IsLocal(s) && filepath.Base(s) == s }

// masker replaces secrets in a stream, wherever the stream is cut.
type masker struct {
	values [][]byte // longest first
	held   []byte   // the end of what was written, which may begin a secret
}

const masked = "[secret]"

// minSecret is the shortest value that is looked for: shorter ones are in
// everything.
const minSecret = 4

func newMasker(secrets map[string]string) *masker {
	m := &masker{}
	for _, v := range slices.Collect(maps.Values(secrets)) {
		// A value of several lines is shown line by line.
		for line := range strings.Lines(v) {
			if line = strings.TrimSpace(line); len(line) >= minSecret {
				m.values = append(m.values, []byte(line))
			}
		}
	}
	slices.SortFunc(m.values, func(a, b []byte) int { return len(b) - len(a) })
	return m
}

// write gives what may be shown now.
func (m *masker) write(p []byte) []byte {
	if len(m.values) == 0 {
		return p
	}
	text := append(m.held, p...)
	for _, v := range m.values {
		text = bytes.ReplaceAll(text, v, []byte(masked))
	}
	keep := 0
	for _, v := range m.values {
		for n := min(len(v)-1, len(text)); n > keep; n-- {
			if bytes.HasSuffix(text, v[:n]) {
				keep = n
				break
			}
		}
	}
	m.held = bytes.Clone(text[len(text)-keep:])
	return text[:len(text)-keep]
}

// end gives what was held back.
func (m *masker) end() []byte {
	rest := m.held
	m.held = nil
	return rest
}
