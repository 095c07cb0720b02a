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
	"trysail/release"
)

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// writeSums lists files as sha256sum does, sorted by name.
func writeSums(sums map[string]string) []byte {
	var b bytes.Buffer
	escape, _ := escapes()
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		escaped := escape.Replace(name)
		if escaped != name {
			b.WriteByte('\\')
		}
		b.WriteString(sums[name] + "  " + escaped + "\n")
	}
	return b.Bytes()
}

var sumLine = regexp.MustCompile(`^(\\?)([0-9a-f]{64})  (.+)$`)

// escapes are what sha256sum writes of a name that is not one line, after a backslash at the line's
// beginning.
func escapes() (write, read *strings.Replacer) {
	return strings.NewReplacer("\\", `\\`, "\n", `\n`, "\r", `\r`), strings.NewReplacer(`\\`, "\\", `\n`, "\n", `\r`, "\r")
}

// FileName tells whether a name is one that a bundle may hold: below it, and written in one
// way. What was shipped has the names that it has, all others have none that a shell or a
// terminal takes for something else.
func FileName(name string) bool {
	if !fs.ValidPath(name) || name == "." {
		return false
	}
	if strings.HasPrefix(name, artifactDir+"/") {
		return release.CheckPath(strings.TrimPrefix(name, artifactDir+"/")) == nil
	}
	return !strings.Contains(name, "\\") && !strings.ContainsFunc(name, unicode.IsControl) && !strings.HasPrefix(name, "-")
}

// readSums reads such a list strictly: sorted, each name once, none that leads out.
func readSums(file string, data []byte) (map[string]string, error) {
	if err := strict.Text(file, data, maxList, "take the bundle again from where it was made"); err != nil {
		return nil, err
	}
	list, last, n := map[string]string{}, "", 0
	escape, unescape := escapes()
	for line := range strings.Lines(string(data)) {
		n++
		fail := func(format string, args ...any) error {
			return &strict.Error{File: file, Line: n, What: fmt.Sprintf(format, args...), Remedy: "take the bundle again from where it was made"}
		}
		m := sumLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			return nil, fail("this is no line of sha256sum")
		}
		name := m[3]
		if m[1] != "" {
			name = unescape.Replace(name)
		}
		switch {
		case (m[1] != "") != (escape.Replace(name) != name) || m[1] != "" && escape.Replace(name) != m[3]:
			return nil, fail("the name is not written as sha256sum writes it")
		case !FileName(name):
			return nil, fail("%q leads out of the bundle", name)
		case name <= last:
			return nil, fail("%q does not follow %q: names are sorted, and stand once", name, last)
		}
		list[name], last = m[2], name
	}
	return list, nil
}
