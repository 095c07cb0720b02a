package sbom

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
)

// Unknown stands where a licence cannot be read from what is there.
const Unknown = "unknown"

// Licence is what one component says about its licence.
type Licence struct {
	Component string `json:"component"` // package URL, or what names it else
	Name      string `json:"name"`
	Version   string `json:"version,omitempty"`
	// Licences are as the component's own documents write them, sorted; nil is unknown.
	Licences []string `json:"licences,omitempty"`
	From     string   `json:"from,omitempty"` // the document
	Why      string   `json:"why,omitempty"`  // why it is unknown
}

// Text gives the licences in one line.
func (l Licence) Text() string {
	if len(l.Licences) == 0 {
		return Unknown
	}
	return strings.Join(l.Licences, "; ")
}

// Licences lists the licence of each third-party component of a bill. Debian
// packages are read from texts, the root of the rebuilt server (nil: there is
// none): usr/share/doc/NAME/copyright, if that is machine-readable. Its links are
// followed by texts, so give one that stays inside, such as [os.Root.FS]. Of
// artifacts' packages it takes what their metadata said to [Shipped]. These are
// what the documents declare; no text is compared with the texts of licences.
func Licences(b *BOM, texts fs.FS) []Licence {
	list := []Licence{}
	for _, c := range components(b) {
		if !third(c) {
			continue
		}
		l := Licence{Component: cmp.Or(c.PackageURL, c.Name), Name: c.Name, Version: c.Version}
		if c.Group != "" {
			l.Name = c.Group + "/" + c.Name
		}
		switch kind, _, _ := strings.Cut(strings.TrimPrefix(c.PackageURL, "pkg:"), "/"); {
		case kind == "deb" && strings.Count(c.PackageURL, "/") < 2:
			l.Why = "a package in an artifact: its copyright file is not read"
		case kind == "deb" && texts == nil:
			l.Why = "no root was given to read its copyright file from"
		case kind == "deb":
			l.From = path.Join("usr/share/doc", c.Name, "copyright")
			names, err := copyright(texts, l.From)
			l.Licences = names
			if err != nil {
				l.Why = text(err.Error())
			}
		case c.Licenses != nil:
			for _, x := range *c.Licenses {
				if x.License != nil {
					l.Licences = append(l.Licences, cmp.Or(x.License.ID, x.License.Name))
				} else if x.Expression != "" {
					l.Licences = append(l.Licences, x.Expression)
				}
			}
			l.From = "the package's metadata"
		case strings.HasPrefix(c.BOMRef, "download:"):
			l.Why = "a download is not looked into"
		case kind == "golang":
			l.Why = "a Go program does not say the licences of its modules"
		case kind == "npm" || kind == "pypi" || kind == "maven":
			l.Why = "its metadata names none"
		default:
			l.Why = "nothing in it says so in a form that is known"
		}
		l.Licences = slices.DeleteFunc(l.Licences, func(s string) bool { return s == "" })
		slices.Sort(l.Licences)
		l.Licences = slices.Compact(l.Licences)
		if len(l.Licences) == 0 {
			l.Licences = nil
			l.Why = cmp.Or(l.Why, "its metadata names none")
		}
		list = append(list, l)
	}
	slices.SortStableFunc(list, func(x, y Licence) int {
		return cmp.Or(strings.Compare(x.Component, y.Component), strings.Compare(x.Text(), y.Text()))
	})
	return list
}

// copyright reads a package's copyright file.
func copyright(texts fs.FS, name string) ([]string, error) {
	if !fs.ValidPath(name) {
		return nil, errors.New("its name is no path")
	}
	f, err := texts.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("it has no copyright file")
	}
	if err != nil {
		return nil, fmt.Errorf("its copyright file cannot be read: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.New("its copyright file is no regular file")
	}
	data, err := readBounded(f)
	if err != nil {
		return nil, fmt.Errorf("its copyright file cannot be read: %w", err)
	}
	return parseCopyright(data)
}

// parseCopyright reads the licences of a copyright file in Debian's
// machine-readable format (DEP-5, copyright-format 1.0): the short names in the
// header and in the paragraphs of files. Paragraphs that hold only a licence's
// text are not read: no file need be under it. Each paragraph of files must name
// its licence, else the list would look whole and not be.
func parseCopyright(data []byte) ([]string, error) {
	set := map[string]bool{}
	first := true
	for _, para := range paragraphs(string(data)) {
		if first {
			format := strings.ToLower(para["format"] + para["format-specification"])
			if !strings.Contains(format, "copyright-format") && !strings.Contains(format, "dep5") && !strings.Contains(format, "dep-5") {
				return nil, errors.New("its copyright file is not machine-readable")
			}
		}
		_, files := para["files"]
		l, has := para["license"]
		l = strings.Join(strings.Fields(l), " ")
		switch {
		case files && (!has || l == ""):
			return nil, fmt.Errorf("its copyright file names no licence for the files %.100q", para["files"])
		case (first || files) && l != "":
			if len(l) > 500 {
				return nil, errors.New("its copyright file has a text where a licence's name should be")
			}
			set[text(l)] = true
		}
		first = false
	}
	if first {
		return nil, errors.New("its copyright file is not machine-readable")
	}
	if len(set) == 0 {
		return nil, errors.New("its copyright file names no licence")
	}
	return slices.Sorted(maps.Keys(set)), nil
}

// paragraphs reads the first line of each field, by its name in lower case.
func paragraphs(data string) []map[string]string {
	var list []map[string]string
	para := map[string]string{}
	end := func() {
		if len(para) > 0 {
			list = append(list, para)
			para = map[string]string{}
		}
	}
	for line := range strings.Lines(data) {
		line = strings.TrimRight(line, " \t\r\n")
		if line == "" {
			end()
			continue
		}
		if line[0] == ' ' || line[0] == '\t' || line[0] == '#' {
			continue
		}
		if k, v, ok := strings.Cut(line, ":"); ok {
			k = strings.ToLower(strings.TrimSpace(k))
			if _, twice := para[k]; !twice {
				para[k] = strings.TrimSpace(v)
			}
		}
	}
	end()
	return list
}

// WriteLicences writes an inventory as Markdown: how many components are under
// each licence, those that are unknown, and all.
func WriteLicences(w io.Writer, list []Licence) error {
	var b strings.Builder
	count := map[string]int{}
	unknown := 0
	for _, l := range list {
		for _, n := range l.Licences {
			count[n]++
		}
		if len(l.Licences) == 0 {
			unknown++
		}
	}
	components := "1 component"
	if len(list) != 1 {
		components = fmt.Sprintf("%d components", len(list))
	}
	fmt.Fprintf(&b, "%s, %d of them with an unknown licence. What is listed is what their own documents declare.\n", components, unknown)
	if len(count) > 0 {
		b.WriteString("\n| licence | components |\n|---|---|\n")
		for _, n := range slices.Sorted(maps.Keys(count)) {
			fmt.Fprintf(&b, "| %s | %d |\n", cell(n), count[n])
		}
	}
	if unknown > 0 {
		b.WriteString("\n| unknown | version | why |\n|---|---|---|\n")
		for _, l := range list {
			if len(l.Licences) == 0 {
				fmt.Fprintf(&b, "| %s | %s | %s |\n", cell(readable(l)), cell(l.Version), cell(l.Why))
			}
		}
	}
	if len(list) > unknown {
		b.WriteString("\n| component | version | licences | from |\n|---|---|---|---|\n")
		for _, l := range list {
			if len(l.Licences) > 0 {
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", cell(readable(l)), cell(l.Version), cell(l.Text()), cell(l.From))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// readable is a component's package URL as a person reads it.
func readable(l Licence) string {
	if s, err := url.PathUnescape(unversioned(l.Component)); err == nil && strings.HasPrefix(l.Component, "pkg:") {
		return s
	}
	return l.Component
}
