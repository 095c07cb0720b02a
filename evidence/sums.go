package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"trysail/internal/strict"
)

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// writeSums lists files as sha256sum does, sorted by name.
func writeSums(sums map[string]string) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(&b, "%s  %s\n", sums[name], name)
	}
	return b.Bytes()
}

var sumLine = regexp.MustCompile(`^([0-9a-f]{64})  (.+)$`)

// FileName tells whether a name is one that a bundle may hold: below it, written in one
// way, and without what a shell or a checksum file takes for something else.
func FileName(name string) bool {
	return fs.ValidPath(name) && name != "." && !strings.Contains(name, "\\") && !strings.ContainsFunc(name, unicode.IsControl) && !strings.HasPrefix(name, "-")
}

// readSums reads such a list strictly: sorted, each name once, none that leads out.
func readSums(file string, data []byte) (map[string]string, error) {
	if err := strict.Text(file, data, 16<<20, "take the bundle again from where it was made"); err != nil {
		return nil, err
	}
	list, last, n := map[string]string{}, "", 0
	for line := range strings.Lines(string(data)) {
		n++
		fail := func(format string, args ...any) error {
			return &strict.Error{File: file, Line: n, What: fmt.Sprintf(format, args...), Remedy: "take the bundle again from where it was made"}
		}
		m := sumLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		switch {
		case m == nil:
			return nil, fail("this is no line of sha256sum")
		case !FileName(m[2]):
			return nil, fail("%q leads out of the bundle", m[2])
		case m[2] <= last:
			return nil, fail("%q does not follow %q: names are sorted, and stand once", m[2], last)
		}
		list[m[2]], last = m[1], m[2]
	}
	return list, nil
}
