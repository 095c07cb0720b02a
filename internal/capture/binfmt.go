package capture

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"trysail/internal/tree"
)

// foreignFormat is a registration of the kernel's binfmt_misc: files that it starts by an
// interpreter.
type foreignFormat struct {
	name, interpreter string
	extension         string // with its dot; "" where the beginning of the file decides
	offset            int
	magic, mask       []byte
}

// foreignFormats reads what the kernel shows of its registrations: none, where it has no such
// formats, or nobody mounted them.
func foreignFormats(dir string) (list []foreignFormat, err error) {
	entries, err := tree.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() == "register" { // which is written only
			continue
		}
		text, err := tree.ReadFile(path.Join(dir, e.Name()), 64<<10)
		if err != nil {
			return nil, err
		}
		if f := parseFormat(e.Name(), string(text)); f.interpreter != "" {
			list = append(list, f)
		}
	}
	return list, nil
}

// parseFormat reads one registration. One that is off, and the kernel's own files there, have
// no interpreter.
func parseFormat(name, text string) foreignFormat {
	f := foreignFormat{name: name}
	if !strings.HasPrefix(text, "enabled\n") {
		return f
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		var err error
		switch key {
		case "interpreter":
			f.interpreter = value
		case "extension":
			f.extension = value
		case "offset":
			f.offset, err = strconv.Atoi(value)
		case "magic":
			f.magic, err = hex.DecodeString(value)
		case "mask":
			f.mask, err = hex.DecodeString(value)
		}
		if err != nil {
			return foreignFormat{}
		}
	}
	return f
}

// is tells whether the kernel starts a file by the interpreter, as fs/binfmt_misc.c decides.
func (f foreignFormat) is(beginning []byte, name string) bool {
	if f.extension != "" {
		return path.Ext(name) == f.extension
	}
	if len(f.magic) == 0 || len(beginning) < f.offset+len(f.magic) {
		return false
	}
	part := bytes.Clone(beginning[f.offset : f.offset+len(f.magic)])
	for i := range min(len(f.mask), len(part)) {
		part[i] &= f.mask[i]
	}
	want := bytes.Clone(f.magic)
	for i := range min(len(f.mask), len(want)) {
		want[i] &= f.mask[i]
	}
	return bytes.Equal(part, want)
}

// beginning is what the kernel reads of a file that the build started, to see what it is.
func (c *capture) beginning(p string) []byte {
	real, _ := c.result.Real(p)
	f, err := tree.OpenFile(real)
	if err != nil {
		return nil // the build removed it
	}
	defer f.Close()
	b := make([]byte, 256)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return b[:n]
}
