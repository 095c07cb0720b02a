package trysail

import (
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// access names a use of a path outside of internal/tree, and why it is safe.
type access struct {
	file  string
	calls string // names of functions, separated by spaces
	why   string
}

// careful are the packages that meet directories which somebody else can change:
// working copies, outputs, rebuilt roots, files that a user named.
func careful() []string {
	return []string{
		"internal/agent", "internal/build", "internal/capture", "internal/cli", "internal/compare", "internal/debian", "internal/keys",
		"internal/notify", "internal/rebuild", "internal/sbom", "internal/secret", "internal/vcs", "internal/witness",
	}
}

// byPath are functions that resolve a path and follow the links in it.
func byPath() map[string][]string {
	return map[string][]string{
		"os": {
			"Open", "OpenFile", "Create", "ReadFile", "WriteFile", "Stat", "Lstat", "ReadDir", "Readlink", "Symlink", "Link", "Mkdir", "MkdirAll", "MkdirTemp",
			"CreateTemp", "Remove", "RemoveAll", "Rename", "Chown", "Lchown", "Chmod", "Chtimes", "Truncate", "DirFS", "CopyFS", "OpenRoot", "OpenInRoot",
		},
		"filepath": {"Walk", "WalkDir", "Glob", "EvalSymlinks"},
		"renameio": {"WriteFile", "NewPendingFile", "TempFile", "Symlink"},
		"unix":     {"Open", "Openat", "Stat", "Lstat", "Access", "Chown", "Lchown", "Chmod", "Unlink", "Rename", "Mkdir", "Mknod"},
		"syscall":  {"Open", "Stat", "Lstat"},
		"elf":      {"Open"},
		"zip":      {"OpenReader"},
	}
}

// TestPathsOfOthersAreResolvedByTree reads the source: code that runs as root over
// what others can change opens, walks and writes it with internal/tree.
func TestPathsOfOthersAreResolvedByTree(t *testing.T) {
	type use struct{ file, call string }
	used := map[use]bool{}
	allowed := func(file, call string) bool {
		return slices.ContainsFunc(exceptions(), func(a access) bool {
			return a.file == file && slices.Contains(strings.Fields(a.calls), call)
		})
	}
	for _, s := range sources(t) {
		if s.test || !slices.Contains(careful(), s.pkg) {
			continue
		}
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok || !slices.Contains(byPath()[pkg.Name], sel.Sel.Name) {
				return true
			}
			call := pkg.Name + "." + sel.Sel.Name
			used[use{s.file, call}] = true
			if !allowed(s.file, call) {
				t.Errorf("%s calls %s, which follows links that the directory's owner can place: use internal/tree, or add the reason to the table", s.file, call)
			}
			return true
		})
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok && joinsARoot(c) {
				t.Errorf("%s joins a path to a root and opens it by name: use tree.Open or tree.OpenRoot, and the name below it", s.file)
			}
			return true
		})
	}
	for _, a := range exceptions() {
		for _, call := range strings.Fields(a.calls) {
			if !used[use{a.file, call}] {
				t.Errorf("%s does not call %s any more: remove it from the table", a.file, call)
			}
		}
	}
}

// joinsARoot tells whether a call opens filepath.Join(root, …) with tree.
func joinsARoot(c *ast.CallExpr) bool {
	if !selects(c.Fun, "tree", "") || len(c.Args) == 0 {
		return false
	}
	join, ok := c.Args[0].(*ast.CallExpr)
	if !ok || !selects(join.Fun, "filepath", "Join") && !selects(join.Fun, "path", "Join") || len(join.Args) == 0 {
		return false
	}
	name := ""
	switch x := join.Args[0].(type) {
	case *ast.Ident:
		name = x.Name
	case *ast.SelectorExpr:
		name = x.Sel.Name
	}
	return slices.Contains([]string{"root", "checkout", "workspace"}, strings.ToLower(name))
}

func selects(e ast.Expr, pkg, name string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == pkg && (name == "" || sel.Sel.Name == name)
}

// exceptions are paths that root made, or that only root can change.
func exceptions() []access {
	const (
		own     = "in the agent's or the session's own directory, which root makes with mode 0700"
		layers  = "below the state directory, which root makes with mode 0700; a removal follows no link"
		kernel  = "files of the kernel in /proc, /sys and the cgroup file system"
		system  = "files of the machine that only root can change"
		scratch = "a new file with a name that nobody knows, removed at once"
		looks   = "only looks at names, types and sizes, and opens no file"
		worker  = "in the worker, which runs as the owner of the working copy"
	)
	return []access{
		{"internal/agent/log.go", "os.OpenFile", own},
		{"internal/agent/recheck.go", "os.MkdirAll os.OpenFile", own},
		{"internal/agent/plain.go", "os.Open os.WriteFile", kernel + ": the step's cgroup"},
		{"internal/agent/run.go", "os.Symlink os.WriteFile", own},
		{"internal/agent/work.go", "os.ReadFile", kernel},
		{"internal/build/build.go", "filepath.EvalSymlinks os.Stat", system},
		{"internal/cli/files_trust.go", "filepath.EvalSymlinks", looks + "; who can write each directory above is looked at"},
		{"internal/cli/rebuild_trust.go", "filepath.EvalSymlinks", looks},
		{"internal/build/device.go", "os.Readlink os.ReadFile filepath.Glob", kernel},
		{"internal/build/limits.go", "os.ReadFile", kernel},
		{"internal/build/permits.go", "os.Mkdir os.WriteFile filepath.EvalSymlinks", own + "; where this program's own directories lead"},
		{"internal/build/build.go", "os.Chown os.WriteFile", own + "; cgroup.procs"},
		{"internal/build/build.go", "os.Lstat", looks},
		{"internal/build/trust.go", "os.WriteFile", own},
		{"internal/capture/apt.go", "filepath.Glob", system},
		{"internal/capture/capture.go", "filepath.WalkDir", looks},
		{"internal/capture/collect.go", "filepath.EvalSymlinks filepath.Glob", system},
		{"internal/capture/drift.go", "filepath.WalkDir os.Lstat", looks},
		{"internal/capture/facts.go", "os.Open os.ReadFile os.Readlink", system},
		{"internal/capture/facts.go", "filepath.WalkDir", looks + "; the caller reads with the rights of the build's user"},
		{"internal/capture/host.go", "unix.Stat", looks},
		{"internal/capture/host.go", "os.Chown os.Mkdir os.WriteFile unix.Chmod", own},
		{"internal/capture/inspect.go", "filepath.WalkDir", looks},
		{"internal/capture/observe.go", "filepath.WalkDir os.Lstat os.Readlink", looks},
		{"internal/capture/packages.go", "os.ReadFile renameio.WriteFile", "below the state directory"},
		{"internal/capture/rights.go", "unix.Lstat unix.Open", "with the rights of the build's user, to learn what that user may read; what is opened is closed again"},
		{"internal/cli/doctor.go", "os.ReadDir os.ReadFile os.Stat unix.Stat", system},
		{"internal/cli/drill.go", "os.Mkdir", "below the state directory"},
		{"internal/cli/release_bundle.go", "unix.Access", looks},
		{"internal/cli/runbook.go", "filepath.EvalSymlinks", looks},
		{"internal/cli/serve.go", "os.Remove", "in control's own directory"},
		{"internal/compare/expand.go", "os.CreateTemp os.Remove", scratch},
		{"internal/compare/outputs.go", "os.CreateTemp os.Remove", scratch},
		{"internal/debian/database.go", "os.Open os.ReadFile os.Readlink", system},
		{"internal/debian/originals.go", "os.Chmod os.MkdirTemp os.Open os.Remove os.RemoveAll os.Stat", own},
		{"internal/debian/originals.go", "filepath.Glob unix.Lstat", system},
		{"internal/debian/unpack.go", "os.OpenRoot", "dpkg follows the links of directories in a root, and so does os.Root; files are only made there, never opened"},
		{"internal/keys/token.go", "os.MkdirTemp os.ReadFile os.RemoveAll", "a new directory with mode 0700"},
		{"internal/rebuild/drop.go", "os.OpenFile os.ReadDir", layers},
		{"internal/rebuild/export.go", "os.Create", own},
		{"internal/rebuild/layer.go", "os.Chmod os.Chtimes os.MkdirAll os.Open os.OpenFile os.ReadDir os.ReadFile os.Stat renameio.WriteFile", layers},
		{"internal/rebuild/rebuild.go", "os.Stat", layers},
		{"internal/rebuild/unpack.go", "os.WriteFile", own},
		{"internal/sbom/scan.go", "os.CreateTemp os.Remove", scratch},
		{"internal/vcs/differences.go", "os.OpenRoot", worker},
		{"internal/vcs/git.go", "filepath.WalkDir os.CopyFS os.DirFS os.Lstat os.MkdirAll os.ReadFile os.RemoveAll os.Stat os.WriteFile", worker},
		{"internal/vcs/index.go", "os.ReadFile os.WriteFile", worker},
		{"internal/vcs/own.go", "syscall.Lstat", looks},
		{"internal/vcs/remote.go", "filepath.EvalSymlinks", looks},
		{"internal/vcs/svn.go", "filepath.WalkDir os.Mkdir os.OpenFile os.OpenRoot", worker},
		{"internal/vcs/trust.go", "filepath.EvalSymlinks filepath.WalkDir os.Lstat os.OpenFile unix.Lstat", worker},
		{"internal/vcs/vcs.go", "filepath.EvalSymlinks os.Lstat syscall.Lstat", looks},
		{"internal/vcs/worker.go", "os.OpenRoot", worker},
		{"internal/witness/copy.go", "filepath.EvalSymlinks os.Lstat os.Stat", looks + "; in the working copy of another its owner's worker works"},
		{"internal/witness/git.go", "os.Lstat os.Stat", looks},
		{"internal/witness/unattended.go", "unix.Access", looks},
		{"internal/witness/witness.go", "filepath.EvalSymlinks os.Lstat", looks},
		{"internal/witness/worker.go", "filepath.EvalSymlinks syscall.Lstat", looks},
		{"internal/witness/witness.go", "os.Open os.Remove", "in the caller's own working copy: root has the owner of another's do it (worker.go)"},
	}
}
