package debian

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"trysail/internal/tree"
)

// Alternative is one group of update-alternatives.
type Alternative struct {
	Name    string
	Link    string
	Manual  bool
	Value   string // what the link leads to now
	Choices []Choice
	Slaves  []SlaveLink
}

// Choice is one candidate of an alternative.
type Choice struct {
	Path     string
	Priority int
	Slaves   []string // paths in the order of Alternative.Slaves; "" where it has none
}

// SlaveLink is a link that follows the alternative.
type SlaveLink struct{ Name, Link string }

// Choice finds the candidate in force, or nil.
func (a *Alternative) Choice() *Choice {
	for i := range a.Choices {
		if a.Choices[i].Path == a.Value {
			return &a.Choices[i]
		}
	}
	return nil
}

// ReadAlternatives reads every group below root with its present value.
func ReadAlternatives(root string) ([]Alternative, error) {
	const dir = "var/lib/dpkg/alternatives"
	const most = 1 << 20 // bytes of one group
	d, err := tree.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Alternative
	for _, n := range names {
		if strings.HasSuffix(n.Name(), ".dpkg-tmp") {
			continue // of an update-alternatives that was killed
		}
		file := path.Join(dir, n.Name())
		data, err := d.ReadFile(file, most)
		if err != nil {
			return nil, err
		}
		a, err := ParseAlternative(path.Join(root, file), n.Name(), data)
		if err != nil {
			return nil, err
		}
		a.Value, err = d.Readlink(path.Join("etc/alternatives", n.Name()))
		if err != nil {
			continue // a group whose link is gone leads nowhere
		}
		list = append(list, *a)
	}
	return list, nil
}

// ParseAlternative reads one file of dpkg's alternatives directory: the mode,
// the link, slave names and links up to an empty line, then for each choice its
// path, priority and one line for each slave, up to an empty line.
func ParseAlternative(file, name string, data []byte) (*Alternative, error) {
	text, whole := strings.CutSuffix(string(data), "\n")
	lines := strings.Split(text, "\n")
	if !whole {
		return nil, &FileError{file, len(lines), "the file is torn"}
	}
	at := 0
	next := func() (string, error) {
		if at >= len(lines) {
			return "", &FileError{file, at + 1, "the file is torn"}
		}
		at++
		return lines[at-1], nil
	}
	mode, err := next()
	if err != nil {
		return nil, err
	}
	if mode != "auto" && mode != "manual" {
		return nil, &FileError{file, 1, fmt.Sprintf("mode %.20q is neither auto nor manual", mode)}
	}
	a := &Alternative{Name: name, Manual: mode == "manual"}
	nextPath := func() (string, error) {
		p, err := next()
		if err == nil && !strings.HasPrefix(p, "/") {
			err = &FileError{file, at, fmt.Sprintf("%.60q is no absolute path", p)}
		}
		return p, err
	}
	if a.Link, err = nextPath(); err != nil {
		return nil, err
	}
	for {
		slave, err := next()
		if err != nil {
			return nil, err
		}
		if slave == "" {
			break
		}
		link, err := nextPath()
		if err != nil {
			return nil, err
		}
		a.Slaves = append(a.Slaves, SlaveLink{slave, link})
	}
	for {
		p, err := next()
		if err != nil {
			return nil, err
		}
		if p == "" {
			return a, nil
		}
		if !strings.HasPrefix(p, "/") {
			return nil, &FileError{file, at, fmt.Sprintf("%.60q is no absolute path", p)}
		}
		prio, err := next()
		if err != nil {
			return nil, err
		}
		c := Choice{Path: p}
		if c.Priority, err = strconv.Atoi(prio); err != nil {
			return nil, &FileError{file, at, fmt.Sprintf("priority %.20q is no number", prio)}
		}
		for range a.Slaves {
			s, err := next()
			if err != nil {
				return nil, err
			}
			c.Slaves = append(c.Slaves, s)
		}
		a.Choices = append(a.Choices, c)
	}
}
