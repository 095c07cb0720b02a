package capture

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"

	"trysail/blueprint"
	"trysail/internal/vcs"
)

// readSources reads apt's sources below root, both formats, with the function
// given. Credentials in an address are left out.
func readSources(root string, read func(p string) ([]byte, error)) []blueprint.AptSource {
	files, _ := filepath.Glob(filepath.Join(root, "etc/apt/sources.list.d/*")) // the pattern is valid
	files = append([]string{filepath.Join(root, "etc/apt/sources.list")}, files...)
	var list []blueprint.AptSource
	for _, f := range files {
		data, err := read(f)
		if err != nil {
			continue // not there, or not for this user to read
		}
		switch filepath.Ext(f) {
		case ".list":
			list = append(list, parseSourcesList(data)...)
		case ".sources":
			list = append(list, parseSources(data)...)
		}
	}
	return list
}

// parseSourcesList reads the one-line format of sources.list(5).
func parseSourcesList(data []byte) []blueprint.AptSource {
	var list []blueprint.AptSource
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 3 || (f[0] != "deb" && f[0] != "deb-src") {
			continue
		}
		s := blueprint.AptSource{Types: f[:1]}
		f = f[1:]
		if strings.HasPrefix(f[0], "[") {
			end := slices.IndexFunc(f, func(w string) bool { return strings.HasSuffix(w, "]") })
			if end < 0 {
				continue
			}
			for _, o := range f[:end+1] {
				if v, ok := strings.CutPrefix(strings.Trim(o, "[]"), "signed-by="); ok {
					s.SignedBy = v
				}
			}
			f = f[end+1:]
		}
		if len(f) < 2 || strings.HasPrefix(f[0], "cdrom:") {
			continue
		}
		s.URIs, s.Suites, s.Components = []string{vcs.WithoutUser(f[0])}, f[1:2], f[2:]
		list = append(list, s)
	}
	return list
}

// parseSources reads the deb822 format of sources.list(5).
func parseSources(data []byte) []blueprint.AptSource {
	var list []blueprint.AptSource
	for _, para := range bytes.Split(data, []byte("\n\n")) {
		fields := map[string][]string{}
		last := ""
		for line := range strings.Lines(string(para)) {
			switch {
			case strings.HasPrefix(line, "#"):
			case strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"):
				fields[last] = append(fields[last], strings.Fields(line)...)
			default:
				if k, v, ok := strings.Cut(line, ":"); ok {
					last = strings.ToLower(k)
					fields[last] = strings.Fields(v)
				}
			}
		}
		if len(fields["uris"]) == 0 || len(fields["enabled"]) == 1 && slices.Contains([]string{"no", "false", "without", "off", "disable"}, strings.ToLower(fields["enabled"][0])) {
			continue
		}
		s := blueprint.AptSource{Types: fields["types"], Suites: fields["suites"], Components: fields["components"]}
		for _, u := range fields["uris"] {
			s.URIs = append(s.URIs, vcs.WithoutUser(u))
		}
		if by := fields["signed-by"]; len(by) == 1 {
			s.SignedBy = by[0]
		}
		list = append(list, s)
	}
	return list
}
