// Package debian knows what dpkg and apt know about a machine.
//
// It reads the package database from its files ([ReadDatabase]), answers who
// owns a path, finds the original of each installed package ([FetchOriginals]),
// reads and unpacks .deb archives ([OpenDeb]) and writes the database entries
// that dpkg would have written for them.
//
// Facts come from files, never from guesses. Paths are compared in their
// merged-/usr form when the machine is merged: dpkg lists libc6 under /lib and
// the build opens /usr/lib, and a tool that compares the strings loses most of
// the machine's packages. Diversions are honoured: a diverted path belongs to
// the package that the diversion names.
//
// Originals follow a ladder, one rung at a time and never a newer version: the
// package cache, checked against apt's signed index or against the installed
// files; apt itself by exact version, with its own signature checks on; and
// last a package made again from the installed files, marked as repacked.
//
// Archives are hostile until unpacked: every member is opened below the root
// through [os.Root], links included, sizes are bounded by what the archive
// says, and anything that leaves the root is an error that names the member.
package debian

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Package is one paragraph of dpkg's status file or of a .deb's control file.
type Package struct {
	Name, Version, Architecture, MultiArch  string
	Essential, Protected                    bool
	Priority                                string
	PreDepends, Depends, Provides, Replaces string
	Status                                  string            // "install ok installed"
	Conffiles                               map[string]string // path -> md5 of the packaged version
	Raw                                     []byte            // the paragraph as it stands
}

// Key is the package's name with its architecture.
func (p *Package) Key() string { return p.Name + ":" + p.Architecture }

// InfoName is the prefix of the package's files in dpkg's info directory.
func (p *Package) InfoName() string {
	if p.MultiArch == "same" {
		return p.Key()
	}
	return p.Name
}

// FileName is the usual name of the package's archive, epoch escaped as apt does.
func (p *Package) FileName() string {
	return p.Name + "_" + strings.ReplaceAll(p.Version, ":", "%3a") + "_" + p.Architecture + ".deb"
}

// FileError says which file cannot be read, and where in it.
type FileError struct {
	File string
	Line int
	What string
}

func (e *FileError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.What) }

// Hint says what to do.
func (e *FileError) Hint() string {
	return "the package database is damaged: dpkg --audit shows more; /var/backups holds earlier copies of the status file"
}

// ParseStatus reads deb822 paragraphs, such as dpkg's status file.
func ParseStatus(file string, data []byte) ([]*Package, error) {
	var list []*Package
	line := 1
	if n := len(data); n > 0 && data[n-1] != '\n' {
		return nil, &FileError{file, 1 + bytes.Count(data, []byte("\n")), "the last line is torn"}
	}
	for len(data) > 0 {
		end := bytes.Index(data, []byte("\n\n"))
		para := data
		if end >= 0 {
			para, data = data[:end+1], data[end+2:]
		} else {
			data = nil
		}
		if len(bytes.TrimSpace(para)) > 0 {
			p, err := parseParagraph(file, line, para)
			if err != nil {
				return nil, err
			}
			list = append(list, p)
		}
		line += bytes.Count(para, []byte("\n")) + 1
	}
	return list, nil
}

func parseParagraph(file string, line int, para []byte) (*Package, error) {
	p := &Package{Raw: append(bytes.TrimRight(bytes.TrimLeft(para, "\n"), "\n"), '\n')}
	fields, more := map[string]string{}, map[string][]string{}
	last := ""
	for i, text := range strings.Split(strings.TrimRight(string(para), "\n"), "\n") {
		switch {
		case text == "" && i == 0:
		case text != "" && (text[0] == ' ' || text[0] == '\t'):
			if last == "" {
				return nil, &FileError{file, line + i, "continuation without a field"}
			}
			more[last] = append(more[last], text[1:])
		default:
			key, value, ok := strings.Cut(text, ":")
			if !ok || key == "" || strings.ContainsAny(key, " \t") {
				return nil, &FileError{file, line + i, fmt.Sprintf("not a field: %.60q", text)}
			}
			last = strings.ToLower(key)
			if _, dup := fields[last]; dup {
				return nil, &FileError{file, line + i, "field " + key + " stands twice"}
			}
			fields[last] = strings.TrimSpace(value)
		}
	}
	for key, lines := range more {
		fields[key] = strings.Join(append([]string{fields[key]}, lines...), "\n")
	}
	p.Name, p.Version, p.Architecture, p.MultiArch = fields["package"], fields["version"], fields["architecture"], fields["multi-arch"]
	p.Essential, p.Protected = fields["essential"] == "yes", fields["protected"] == "yes" || fields["important"] == "yes"
	p.Priority, p.PreDepends, p.Depends, p.Provides, p.Replaces = fields["priority"], fields["pre-depends"], fields["depends"], fields["provides"], fields["replaces"]
	p.Status = fields["status"]
	if p.Name == "" {
		return nil, &FileError{file, line, "paragraph without a Package field"}
	}
	if !validName(p.Name) || strings.ContainsFunc(p.Version+p.Architecture, notInVersion) {
		return nil, &FileError{file, line, fmt.Sprintf("package %.60q: name, version or architecture is not valid", p.Name)}
	}
	if c := fields["conffiles"]; c != "" {
		p.Conffiles = map[string]string{}
		for _, l := range strings.Split(c, "\n") {
			if name, md5, ok := conffile(l); ok {
				p.Conffiles[name] = md5
			}
		}
	}
	return p, nil
}

// conffile reads one line of the field: a path, which may hold blanks, the md5
// of the packaged version, and marks of files that are no longer shipped.
func conffile(line string) (name, md5 string, ok bool) {
	line = strings.TrimSpace(line)
	for _, mark := range []string{" obsolete", " remove-on-upgrade"} {
		if strings.HasSuffix(line, mark) {
			return "", "", false
		}
	}
	i := strings.LastIndexByte(line, ' ')
	if i <= 0 || !strings.HasPrefix(line, "/") {
		return "", "", false
	}
	return strings.TrimSpace(line[:i]), line[i+1:], true
}

// notInVersion tells what a version or an architecture never holds.
func notInVersion(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".+:~-", r)
}

func validName(s string) bool {
	for i, c := range s {
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z'
		if !alnum && (i == 0 || !strings.ContainsRune("+.-", c)) {
			return false
		}
	}
	return s != ""
}

// Ownership says that a package ships a path.
type Ownership struct {
	Package  *Package
	MD5      string // of the packaged file; "" for links, directories, and packages without md5sums
	Conffile bool
}

// Diversion is one entry of dpkg's diversions file.
type Diversion struct {
	From, To string
	By       string // the package, or ":" for the administrator
}

// Database is dpkg's view of a machine.
type Database struct {
	root       string
	merged     map[string]bool // top-level names that are links into /usr
	packages   []*Package
	byKey      map[string]*Package
	owners     map[string][]Ownership // by canonical path
	lists      map[string][]string    // package key -> its paths as listed
	diversions []Diversion
	lost       []*Package
	times      map[*Package]times
}

// ReadDatabase reads dpkg's files below root.
func ReadDatabase(root string) (*Database, error) {
	db := &Database{root: root, merged: map[string]bool{}, byKey: map[string]*Package{}, owners: map[string][]Ownership{}, lists: map[string][]string{}, times: map[*Package]times{}}
	for _, d := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		if target, err := os.Readlink(filepath.Join(root, d)); err == nil && strings.TrimPrefix(target, "/") == "usr/"+d {
			db.merged["/"+d] = true
		}
	}
	dir := filepath.Join(root, "var/lib/dpkg")
	file := filepath.Join(dir, "status")
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read dpkg's database (is this Debian or Ubuntu?): %w", err)
	}
	all, err := ParseStatus(file, data)
	if err != nil {
		return nil, err
	}
	if data, err := os.ReadFile(filepath.Join(dir, "diversions")); err == nil {
		if db.diversions, err = ParseDiversions(filepath.Join(dir, "diversions"), data); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, p := range all {
		if !present(p.Status) {
			continue
		}
		db.packages = append(db.packages, p)
		db.byKey[p.Key()] = p
		if err := db.readFiles(dir, p); err != nil {
			return nil, err
		}
	}
	return db, nil
}

// present tells that a package's files are whole on the machine: installed, or
// waiting for another package's trigger, which changes nothing in them.
func present(status string) bool {
	f := strings.Fields(status)
	return len(f) == 3 && (f[2] == "installed" || f[2] == "triggers-awaited" || f[2] == "triggers-pending")
}

// readList reads a list of files and the time at which dpkg wrote it.
func readList(name string) (list []byte, t times, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, t, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, t, err
	}
	t.unpacked = info.ModTime()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		t.listed = time.Unix(st.Ctim.Unix())
	}
	list, err = io.ReadAll(f)
	return list, t, err
}

// times are those of a package's list of files.
type times struct{ unpacked, listed time.Time }

func (db *Database) readFiles(dir string, p *Package) error {
	base := filepath.Join(dir, "info", p.InfoName())
	list, times, err := readList(base + ".list")
	if errors.Is(err, fs.ErrNotExist) {
		db.lost = append(db.lost, p)
		return nil
	}
	if err != nil {
		return fmt.Errorf("files of %s: %w", p.Name, err)
	}
	db.times[p] = times
	sums := map[string]string{}
	if f, err := os.Open(base + ".md5sums"); err == nil {
		sc := bufio.NewScanner(f)
		for sc.Scan() {
			if sum, name, ok := strings.Cut(sc.Text(), " "); ok {
				sums["/"+strings.TrimLeft(name, " *")] = sum
			}
		}
		err := sc.Err()
		f.Close()
		if err != nil {
			return fmt.Errorf("%s.md5sums: %w", base, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(list)) {
		name := strings.TrimRight(line, "\n")
		if name == "/." || name == "" {
			continue
		}
		o := Ownership{Package: p, MD5: sums[name]}
		if md5, ok := p.Conffiles[name]; ok {
			o.MD5, o.Conffile = md5, true
		}
		at := db.Canonical(db.divert(name, p.Name))
		db.owners[at] = append(db.owners[at], o)
		db.lists[p.Key()] = append(db.lists[p.Key()], at)
	}
	return nil
}

// divert gives the place where a package's file really is.
func (db *Database) divert(name, pkg string) string {
	for _, d := range db.diversions {
		if d.From == name && d.By != pkg {
			return d.To
		}
	}
	return name
}

// Canonical rewrites a path to the form that merged-/usr machines have.
func (db *Database) Canonical(p string) string {
	p = path.Clean(p)
	if i := strings.IndexByte(p[1:], '/'); i >= 0 && db.merged[p[:i+1]] {
		return "/usr" + p
	}
	return p
}

// Merged lists the top-level names that are links into /usr, sorted.
func (db *Database) Merged() []string {
	var list []string
	for d := range db.merged {
		list = append(list, d[1:])
	}
	slices.Sort(list)
	return list
}

// Installed lists the installed packages in the order of the status file.
func (db *Database) Installed() []*Package { return db.packages }

// Lost lists the packages whose list of files dpkg has lost: what they own is not known.
func (db *Database) Lost() []*Package { return db.lost }

// Unpacked is when dpkg unpacked a package whose list of files it has: a file that is younger
// was put there since.
func (db *Database) Unpacked(p *Package) time.Time { return db.times[p].unpacked }

// Listed is when the list of a package's files came to this file system, be it with an image of
// the machine: a file of the package whose status changed after that was changed since.
func (db *Database) Listed(p *Package) time.Time { return db.times[p].listed }

// Package finds an installed package by "name:arch".
func (db *Database) Package(key string) *Package { return db.byKey[key] }

// Owners tells which packages ship a path; directories may have many.
func (db *Database) Owners(p string) []Ownership { return db.owners[db.Canonical(p)] }

// Files lists the paths of a package in canonical form.
func (db *Database) Files(p *Package) []string { return db.lists[p.Key()] }

// Diversions lists the diversions in force.
func (db *Database) Diversions() []Diversion { return db.diversions }

// ParseDiversions reads dpkg's diversions: three lines each.
func ParseDiversions(file string, data []byte) ([]Diversion, error) {
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return nil, nil
	}
	if len(lines)%3 != 0 {
		return nil, &FileError{file, len(lines), "entries are three lines each; the last is torn"}
	}
	var list []Diversion
	for i := 0; i < len(lines); i += 3 {
		d := Diversion{From: lines[i], To: lines[i+1], By: lines[i+2]}
		if !strings.HasPrefix(d.From, "/") || !strings.HasPrefix(d.To, "/") || d.By == "" {
			return nil, &FileError{file, i + 1, "not a diversion"}
		}
		list = append(list, d)
	}
	return list, nil
}
