package rebuild

import (
	"cmp"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/internal/tree"
)

// Deviation is one path that the captured build used and that a root has not,
// or has otherwise, with the item of the blueprint that ought to provide it.
type Deviation struct {
	Path string `json:"path"`
	Item string `json:"item"`
	What string `json:"what"`
}

// Verify compares a root with what a captured build found there: every path of
// the observation that a machine must provide. It names omissions even where
// the blueprint itself has lost them.
// Links lead where they lead in the root, and never to this machine's own files.
func Verify(dir string, observation []blueprint.Observed, skip map[string]bool) ([]Deviation, error) {
	root, err := tree.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var list []Deviation
	for _, o := range observation {
		if !o.Provided() || skip[o.Path] {
			continue
		}
		what, err := deviates(root, o)
		if err != nil {
			return nil, err
		}
		if what != "" {
			list = append(list, Deviation{o.Path, o.Provider(), what})
		}
	}
	return list, nil
}

func deviates(root *tree.Dir, o blueprint.Observed) (string, error) {
	p := path.Clean("/" + o.Path)[1:]
	if p == "" {
		return "", nil
	}
	info, err := root.Lstat(p)
	absent := o.Class == blueprint.ClassConfig && o.Type == ""
	if absent && err == nil {
		return "is there, and was not on the captured machine", nil
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) || isNotDir(err) {
		if absent || o.Class == blueprint.ClassGenerated && o.SHA256 == "" && o.Ops == "stat" {
			return "", nil
		}
		return "is missing", nil
	}
	if errors.Is(err, unix.ELOOP) {
		return "stands behind links that lead nowhere", nil
	}
	if err != nil {
		return "", err
	}
	remade := o.Class == blueprint.ClassGenerated && o.SHA256 == ""
	switch {
	case remade && info.IsDir() == (o.Type == "dir"):
		return "", nil // a file or a link to one: the scripts here decide
	case o.Type == "dir" && !info.IsDir(), o.Type == "file" && !info.Mode().IsRegular(), o.Type == "link" && info.Mode()&fs.ModeSymlink == 0:
		return "is not a " + o.Type, nil
	case o.Type == "link" && !remade:
		target, err := root.Readlink(p)
		if err != nil {
			return "", err
		}
		if target != o.Link {
			return "leads to " + target + ", not to " + o.Link, nil
		}
	case o.SHA256 != "" && o.Type == "file":
		sum, err := fileSum(root, p)
		if err != nil {
			return "", err
		}
		if sum != o.SHA256 {
			return "has other content", nil
		}
	}
	return "", nil
}

func isNotDir(err error) bool {
	var pe *fs.PathError
	return errors.As(err, &pe) && strings.Contains(pe.Err.Error(), "not a directory")
}

// ByItem groups deviations by the item that ought to provide the path.
func ByItem(list []Deviation) []Deviation {
	count := map[string]int{}
	first := map[string]Deviation{}
	for _, d := range list {
		if count[d.Item] == 0 {
			first[d.Item] = d
		}
		count[d.Item]++
	}
	var out []Deviation
	for _, d := range first {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b Deviation) int {
		return cmp.Or(strings.Compare(a.Item, b.Item), strings.Compare(a.Path, b.Path))
	})
	return out
}
