package cli

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// text gives the text of a string that is put together in the source; what is not written
// there is X.
func text(e ast.Expr) (string, bool) {
	switch x := e.(type) {
	case *ast.BasicLit:
		if x.Kind != token.STRING {
			return "", false
		}
		s, err := strconv.Unquote(x.Value)
		return regexp.MustCompile(`%[-+#0-9.\[\]]*[a-zA-Z]`).ReplaceAllString(s, "X"), err == nil
	case *ast.BinaryExpr:
		if x.Op != token.ADD {
			return "", false
		}
		a, aok := text(x.X)
		b, bok := text(x.Y)
		if !aok {
			a = "X"
		}
		if !bok {
			b = "X"
		}
		return a + b, aok || bok
	case *ast.ParenExpr:
		return text(x.X)
	}
	return "", false
}

// commands are what a text tells people to type: the words after trysail, up to the end of
// the sentence or of the list.
func commands(s string) (list [][]string) {
	parts := strings.Split(s, "trysail ")
	for i, rest := range parts[1:] {
		if before := parts[i]; before != "" && strings.ContainsAny(before[len(before)-1:], "/abcdefghijklmnopqrstuvwxyz") {
			continue // part of a path
		}
		if end := strings.IndexFunc(rest, func(r rune) bool { return strings.ContainsRune("\n;:()→…", r) }); end >= 0 {
			rest = rest[:end]
		}
		var words []string
		for word := range strings.FieldsSeq(rest) {
			if word == "or" || word == "and" || strings.HasPrefix(word, ">") {
				break
			}
			full := strings.TrimSuffix(word, "X")
			last := strings.HasSuffix(word, ".") || strings.HasSuffix(word, ",") || strings.HasSuffix(full, ".")
			if last {
				word = full
			}
			if words = append(words, strings.TrimSuffix(strings.Trim(word, ".,'\"`?!"), "'s")); last {
				break
			}
		}
		if len(words) > 0 && words[0] != "" && !strings.HasPrefix(words[0], "{") {
			list = append(list, words)
		}
	}
	return list
}

// isValue tells whether a word stands for what a person fills in.
func isValue(word string) bool {
	return strings.ToUpper(word) == word && strings.ContainsFunc(word, func(r rune) bool { return r >= 'A' && r <= 'Z' }) || strings.ContainsAny(word, "./0123456789")
}

// wrong says why a command cannot be typed; "" if it can. Prose that follows is passed over.
func wrong(root *cobra.Command, words []string) string {
	cmd := root
	for len(words) > 0 {
		i := slices.IndexFunc(cmd.Commands(), func(c *cobra.Command) bool { return c.Name() == words[0] })
		if i < 0 {
			break
		}
		cmd, words = cmd.Commands()[i], words[1:]
	}
	if cmd.HasSubCommands() && len(words) > 0 && words[0] == "X" {
		return "" // which one is not written there
	}
	if cmd == root && (len(words) == 0 || !strings.HasPrefix(words[0], "-")) {
		return "there is no such command"
	}
	if cmd.HasSubCommands() && len(words) > 1 && !strings.HasPrefix(words[0], "-") && !isValue(words[0]) && (isValue(words[1]) || strings.HasPrefix(words[1], "-")) {
		return cmd.CommandPath() + " has no command " + words[0]
	}
	var args []string
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		name, flag := strings.CutPrefix(word, "--")
		if word == "--" {
			break // what follows is somebody's command
		}
		if !flag {
			if !isValue(word) {
				break // prose
			}
			args = append(args, word)
			continue
		}
		name, _, given := strings.Cut(name, "=")
		f := cmd.Flag(name)
		if f == nil {
			return cmd.CommandPath() + " has no flag --" + name
		}
		if f.NoOptDefVal == "" && !given && len(words) > 0 {
			words = words[1:] // its value
		}
	}
	if len(args) > 0 && cmd.Args != nil && !slices.Contains(args, "X") {
		// Fewer may be written than are needed: the rest is prose, as in "trysail fleet retire it".
		if err := cmd.Args(cmd, args); err != nil && cmd.Args(cmd, append(args, "x")) != nil && cmd.Args(cmd, append(args, "x", "x")) != nil {
			return err.Error()
		}
	}
	return ""
}

// TestHintedCommands: what messages tell people to type exists, with those flags.
func TestHintedCommands(t *testing.T) {
	a := &app{stdin: strings.NewReader(""), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	root, err := a.rootCommand()
	if err != nil {
		t.Fatal(err)
	}
	// Sentences about the program.
	prose := []string{"is", "needs", "says", "wrote", "does", "keeps", "cannot", "writes", "reads", "adds", "checks", "made", "runs", "knows", "version", "on", "to", "ledger", "and", "as", "here", "before", "again", "build", "step", "of", "with", "may", "blueprint", "control", "checkpoint", "guard"}
	seen := 0
	err = filepath.WalkDir("../..", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.IsDir() && (d.Name() == "testdata" || d.Name() == "bin" || strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2) {
				return fs.SkipDir
			}
			return err
		}
		if filepath.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		files := token.NewFileSet()
		syntax, err := parser.ParseFile(files, file, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(syntax, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			s, ok := text(e)
			if !ok {
				return true
			}
			for _, words := range commands(s) {
				if len(words) == 0 || slices.Contains(prose, words[0]) {
					continue
				}
				seen++
				if why := wrong(root, words); why != "" {
					t.Errorf("%s: trysail %s: %s", files.Position(e.Pos()), strings.Join(words, " "), why)
				}
			}
			return false // its parts were looked at
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 150 {
		t.Errorf("only %d commands were found", seen)
	}
}

// TestHintedCommandsAreRead: the test above sees what is wrong.
func TestHintedCommandsAreRead(t *testing.T) {
	a := &app{stdin: strings.NewReader(""), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	root, err := a.rootCommand()
	if err != nil {
		t.Fatal(err)
	}
	for hint, want := range map[string]string{
		"on control: trysail fleet token; here: sudo trysail agent --join LINK": "",
		"trysail fleet retir MACHINE":                                           "trysail fleet has no command retir",
		"trysail agents --join LINK":                                            "there is no such command",
		"trysail agent --roles office":                                          "trysail agent has no flag --roles",
		"trysail agent --role office --plain there":                             "",
		"trysail agent --join LINK --serves office":                             "",
		"trysail serve --recover DIR; if it is not, see to it":                  "",
		"trysail --control FILE":                                                "",
		"trysail --kontrol FILE":                                                "trysail has no flag --kontrol",
		"trysail fleet retire A B":                                              "trysail fleet retire MACHINE: ",
		"trysail fleet says why":                                                "",
		"trysail release start VERSION --ship=DATE, as of now":                  "",
		"trysail release sign VERSION ITEM, trysail nothing":                    "there is no such command",
		"it is in trysail/checkpoints and git has it":                           "",
		"sudo trysail capture --yes -- make dist":                               "",
	} {
		got := ""
		for _, words := range commands(hint) {
			if why := wrong(root, words); why != "" {
				got = why
			}
		}
		if got != want && (!strings.HasSuffix(want, ": ") || got == "") {
			t.Errorf("%s: %q, want %q", hint, got, want)
		}
	}
}
