// Package trysail holds the test of the project's own layout. The folders are
// the table of contents: ARCHITECTURE.md explains them, the table below is what
// holds them in place.
package trysail

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// layer is one row of the layout: its packages may import those of rows above
// it, and those of their own row that stand before them.
type layer struct {
	name     string
	why      string
	packages []string
}

func layers() []layer {
	return []layer{
		{"grammar", "what people write is read strictly, in one way", []string{"internal/strict"}},
		{"domain", "what the product is about is pure: no I/O, no clock, no goroutine", []string{"blueprint", "runbook", "release", "fleet", "drill", "evidence"}},
		{"foundations", "one thing each, knowing nothing of builds that are captured or proved", []string{
			"internal/account",
			"internal/rootless",
			"internal/memorytest",
			"internal/api",
			"internal/tree",
			"internal/tree/treetest",
			"internal/vcs",
			"internal/compare",
			"internal/debian",
			"internal/depot",
			"internal/limit",
			"internal/ledger",
			"internal/lock",
			"internal/machine",
			"internal/mask",
			"internal/clock",
			"internal/notify",
			"internal/recorder",
			"internal/sbom",
			"internal/secret",
			"internal/keys",
			"internal/trace",
			"internal/witness",
		}},
		{"running", "a build is run in one way, whoever asks", []string{"internal/build"}},
		{"operations", "capture and rebuild meet only in a blueprint and a depot, as they will on two machines", []string{"internal/capture", "internal/rebuild", "internal/lab", "internal/site"}},
		{"processes", "control and agents meet only in the messages of internal/api, as they will on two machines", []string{"internal/agent", "internal/control"}},
		{"rehearsals", "a drill is a release with faults: it uses control as a person does, and knows nothing of its inside", []string{"internal/exercise"}},
		{"face", "words for people", []string{"internal/cli", "cmd/trysail", "cmd/bench"}},
	}
}

// apart names packages of one row that must not import each other, and why.
func apart() [][2]string {
	return [][2]string{
		{"internal/capture", "internal/rebuild"},
		{"internal/rebuild", "internal/capture"},
		{"internal/control", "internal/agent"},
	}
}

// impure is what a package of the domain may not import.
func impure() []string {
	return []string{"os", "net", "time/tzdata", "os/exec", "syscall", "sync", "context", "log/slog"}
}

// long names files over 600 lines, with the reason that each is one file.
func long() map[string]string {
	return map[string]string{}
}

type source struct {
	file    string // relative to the root
	pkg     string // its directory
	syntax  *ast.File
	lines   int
	test    bool
	imports []string
}

func sources(t *testing.T) []source {
	t.Helper()
	var list []source
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return fs.SkipDir
		}
		if d.IsDir() || filepath.Ext(p) != ".go" {
			return nil
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, data, parser.ParseComments)
		if err != nil {
			return err
		}
		s := source{file: p, pkg: path.Dir(p), syntax: f, lines: strings.Count(string(data), "\n"), test: strings.HasSuffix(p, "_test.go")}
		for _, im := range f.Imports {
			s.imports = append(s.imports, strings.Trim(im.Path.Value, `"`))
		}
		list = append(list, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestImportsFollowTheLayers(t *testing.T) {
	rank := map[string]int{}
	row := map[string]layer{}
	for i, l := range layers() {
		for _, p := range l.packages {
			rank[p], row[p] = i, l
		}
	}
	order := func(p string) int { return slices.Index(row[p].packages, p) }
	for _, s := range sources(t) {
		if s.pkg == "." {
			continue
		}
		if _, ok := rank[s.pkg]; !ok {
			t.Errorf("%s: package %s stands in no layer: add it to the table in layout_test.go and to ARCHITECTURE.md", s.file, s.pkg)
			continue
		}
		for _, im := range s.imports {
			if s.test {
				continue
			}
			if im == "unsafe" && s.pkg != "internal/trace" {
				t.Errorf("%s imports unsafe: only the tracer, which shares memory with the kernel, may", s.file)
			}
			if row[s.pkg].name == "domain" && slices.Contains(impure(), im) {
				t.Errorf("%s imports %s: %s", s.file, im, row[s.pkg].why)
			}
			dep, ours := strings.CutPrefix(im, "trysail/")
			if !ours {
				continue
			}
			if rank[dep] > rank[s.pkg] || (rank[dep] == rank[s.pkg] && order(dep) >= order(s.pkg)) {
				t.Errorf("%s (%s) imports %s (%s): %s", s.file, row[s.pkg].name, dep, row[dep].name, row[s.pkg].why)
			}
			if slices.Contains(apart(), [2]string{s.pkg, dep}) {
				t.Errorf("%s imports %s: %s", s.file, dep, row[s.pkg].why)
			}
		}
	}
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	said := map[string]int{}
	for _, s := range sources(t) {
		if s.syntax.Doc != nil && !strings.HasSuffix(s.syntax.Name.Name, "_test") {
			said[s.pkg] += len(strings.Fields(s.syntax.Doc.Text()))
		} else if _, ok := said[s.pkg]; !ok {
			said[s.pkg] = 0
		}
	}
	for pkg, words := range said {
		least := 60 // a design, not a label
		if pkg == "." || strings.HasPrefix(pkg, "cmd/") {
			least = 10
		}
		if words < least {
			t.Errorf("package %s has a comment of %d words: the package comment is its design", pkg, words)
		}
		if slices.Contains([]string{"util", "utils", "common", "helpers", "types", "misc"}, path.Base(pkg)) {
			t.Errorf("package %s: its name says nothing", pkg)
		}
	}
}

func TestFilesStayReadable(t *testing.T) {
	reasons := long()
	for _, s := range sources(t) {
		if s.lines > 600 && reasons[s.file] == "" {
			t.Errorf("%s has %d lines: split it, or give the reason in layout_test.go", s.file, s.lines)
		}
	}
}

// Git and svn execute what a working copy names, so one package runs them, as the owner
// of the copy.
func TestOnlyOnePackageRunsVersionControl(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.pkg == "internal/vcs" {
			continue
		}
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name := ""
			switch f := call.Fun.(type) {
			case *ast.SelectorExpr:
				name = f.Sel.Name
			case *ast.Ident:
				name = f.Name
			}
			if !slices.Contains([]string{"Command", "CommandContext", "StartProcess", "Exec", "LookPath"}, name) {
				return true
			}
			ast.Inspect(call, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					for word := range strings.FieldsFuncSeq(lit.Value, func(r rune) bool { return !(r >= 'a' && r <= 'z') }) {
						if slices.Contains([]string{"git", "svn", "svnadmin", "svnversion"}, word) {
							t.Errorf("%s: %s runs %s: use internal/vcs", s.file, name, word)
						}
					}
				}
				return true
			})
			return true
		})
	}
}

// Mutable state of a package makes two runs in one process meet.
func TestPackagesKeepNoState(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, d := range s.syntax.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				for i, name := range v.Names {
					if name.Name == "_" || embedded(g) || (i < len(v.Values) && constant(v.Values[i])) {
						continue
					}
					t.Errorf("%s: variable %s of the package: pass it, or make it a function", s.file, name.Name)
				}
			}
		}
	}
}

// embedded tells files that the compiler fills in.
func embedded(g *ast.GenDecl) bool {
	return g.Doc != nil && strings.Contains(g.Doc.List[len(g.Doc.List)-1].Text, "go:embed")
}

// constant tells values that nothing changes: compiled expressions and errors.
func constant(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && ((pkg.Name == "regexp" && sel.Sel.Name == "MustCompile") || (pkg.Name == "errors" && sel.Sel.Name == "New"))
}
