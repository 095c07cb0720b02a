package runbook

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"
)

// Draft is what a first runbook is made from.
type Draft struct {
	Title     string
	Blueprint string // directory, relative to the repository's root
	Builds    []DraftBuild
}

// DraftBuild is one captured build.
type DraftBuild struct {
	Name      string
	Command   []string
	Directory string // below the workspace
	Outputs   []string
	Seconds   float64
}

// Text writes a runbook: each build, gold from the last of them, a test to be
// filled in, two sign-offs and a publish step. It is complete enough to run and
// plain about what is still to be written. A build may have any name and any
// command: the document reads one way, and the step runs that command.
func (d Draft) Text() []byte {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("---")
	p("budget: 16 person-hours")
	p("roles:")
	p("  build: {blueprint: %s}", scalar(d.Blueprint))
	p("people:")
	p("  release-manager: {}")
	p("  tester: {}")
	p("approvers: [release-manager, tester]")
	p("endgame:")
	p("  - {phase: Gold master, freezes: [source, runbook, machines], approvals: 1}")
	p("---")
	p("# Release of %s", plainTitle(d.Title))
	p("")
	p("Each named block below is a step that Trysail runs in the rebuilt build server; each checklist item is a")
	p("sign-off by the person it names. With the tool gone, follow it from top to bottom by hand.")
	p("")
	// Names that stand in every draft: those of its phases and of its own items.
	taken := map[string]bool{"tests": true, "gold-master": true, "due-diligence": true, "ship": true, "test": true, "tested": true, "notes": true, "publish": true}
	if len(d.Builds) > 1 {
		p("## Build")
		p("")
		taken["build"] = true
	}
	var built, made []string
	last := len(d.Builds) - 1
	if last >= 0 {
		made = globs(d.Builds[last].Outputs)
	}
	gold := slices.Clone(made)
	for i, x := range d.Builds {
		if i == last {
			break
		}
		// What two make comes from neither: what gold makes too, it alone gives.
		var out, twice []string
		for _, g := range globs(x.Outputs) {
			if slices.Contains(made, g) || slices.ContainsFunc(gold, func(in string) bool { return (&Item{Out: []string{g}}).Makes(in) }) {
				twice = append(twice, g)
			} else {
				out = append(out, g)
			}
		}
		made = append(made, out...)
		name := unique(stepName(x.Name), taken)
		built = append(built, name)
		if len(twice) > 0 {
			p("What this makes of `%s` is not kept: another step makes it too.", strings.Join(twice, ", "))
			p("")
		}
		d.step(p, name, x, out, "")
	}
	p("## Tests")
	p("")
	p("Replace this by what shows that a build is good.")
	p("")
	p("```sh {\"name\":\"test\",\"timeout\":\"1h\",\"budget\":\"5m\"%s}", attribute("needs", built))
	p("test -d .")
	p("```")
	p("")
	p("## Gold master")
	p("")
	if last >= 0 {
		x := d.Builds[last]
		name := stepName(x.Name)
		if taken[name] {
			name = "gold"
		}
		name = unique(name, taken)
		if len(gold) == 0 {
			gold = []string{"dist/**"}
			p("The blueprint names no outputs: write into `out` what this makes.")
			p("")
		}
		d.step(p, name, x, gold, `,"needs":"test","gold":"true"`)
		p("## Due diligence")
		p("")
		p("- [ ] **tested** (@tester, budget 2h, needs %s): the gold master was installed and tried", name)
		p("- [ ] **notes** (@release-manager, budget 1h): release notes and known issues are written")
		p("")
		p("## Ship")
		p("")
		p("Replace this by what publishes the gold master. It runs after every sign-off and sees nothing but gold. If its machine")
		p("is lost it runs again: let it leave alone what is there already, or add \"lost\":\"ask\".")
		p("")
		p("```sh {\"name\":\"publish\",\"kind\":\"publish\",\"timeout\":\"30m\",\"budget\":\"5m\"%s%s}", attribute("in", gold), attribute("needs", []string{name}))
		p("sha256sum %s", expanded(gold))
		p("```")
	}
	return []byte(b.String())
}

func (d Draft) step(p func(string, ...any), name string, x DraftBuild, out []string, more string) {
	const week = 7 * 24 * time.Hour
	took := time.Minute
	if x.Seconds > took.Seconds() {
		took = time.Duration(min(x.Seconds, week.Seconds()) * float64(time.Second)).Round(time.Minute)
	}
	script := command(x.Command)
	if x.Directory != "" {
		dir := x.Directory
		if strings.HasPrefix(dir, "-") {
			dir = "./" + dir // no option
		}
		script = "cd " + quote(dir) + "\n" + script
	}
	fence := fenceFor(script)
	p("%ssh {\"name\":%q,\"role\":\"build\",\"timeout\":%q,\"budget\":%q%s%s}", fence, name, short(4*took+10*time.Minute), short(2*took), attribute("out", out), more)
	p("%s", script)
	p("%s", fence)
	p("")
}

// fenceFor gives one that no line of the script ends: a shorter one would cut the
// script off in the middle, in silence.
func fenceFor(script string) string {
	longest, run := 2, 0
	for _, r := range script {
		if r != '`' {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return strings.Repeat("`", longest+1)
}

// attribute writes one that follows another; nothing where it is empty.
func attribute(key string, words []string) string {
	if len(words) == 0 {
		return ""
	}
	return fmt.Sprintf(",%q:%q", key, strings.Join(words, ","))
}

// globs writes outputs as a runbook takes them: clean, and each alternative of
// {a,b} for itself, because no value of a step holds a brace.
func globs(outputs []string) []string {
	var list []string
	for _, o := range outputs {
		for _, g := range alternatives(o) {
			if g = path.Clean(g); !slices.Contains(list, g) {
				list = append(list, g)
			}
		}
	}
	return list
}

func alternatives(glob string) []string {
	begin := strings.IndexByte(glob, '{')
	if begin < 0 || !doublestar.ValidatePattern(glob) || strings.Contains(glob, `\`) {
		return []string{glob}
	}
	var parts []string
	depth, from := 0, begin+1
	for i := begin; i < len(glob); i++ {
		switch {
		case glob[i] == '{':
			depth++
		case glob[i] == ',' && depth == 1:
			parts, from = append(parts, glob[from:i]), i+1
		case glob[i] == '}':
			if depth--; depth > 0 {
				continue
			}
			var list []string
			for _, part := range append(parts, glob[from:i]) {
				list = append(list, alternatives(glob[:begin]+part+glob[i+1:])...)
			}
			return list
		}
	}
	return []string{glob}
}

// expanded writes globs for a shell, which reads them as globs.
func expanded(globs []string) string {
	var b strings.Builder
	for i, g := range globs {
		if i > 0 {
			b.WriteByte(' ')
		}
		for _, r := range g {
			if !strings.ContainsRune("*?[]^!", r) && quote(string(r)) != string(r) {
				b.WriteByte('\\')
			}
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unique gives a name that nothing has yet, and takes it.
func unique(name string, taken map[string]bool) string {
	free := name
	for n := 2; taken[free]; n++ {
		suffix := fmt.Sprintf("-%d", n)
		free = strings.TrimRight(name[:min(len(name), maxName-len(suffix))], "-") + suffix
	}
	taken[free] = true
	return free
}

func short(d time.Duration) string { return strings.TrimSuffix(d.String(), "0s") } // whole minutes

func plainTitle(s string) string { return strings.Join(strings.Fields(s), " ") }

// scalar writes a path into YAML's flow style.
func scalar(s string) string {
	if regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./-]*$`).MatchString(s) && !strings.EqualFold(s, "null") {
		return s
	}
	return fmt.Sprintf("%q", s)
}

const maxName = 64 // of an item

func stepName(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
			b.WriteByte('-')
		}
	}
	name := b.String()
	if name = strings.Trim(name[:min(len(name), maxName)], "-"); name != "" {
		return name
	}
	return "build"
}

// command writes words so that a shell runs them, the first as a program: with an
// equals sign it would be an assignment, and some names are the shell's own.
func command(argv []string) string {
	var words []string
	for i, w := range argv {
		word := quote(w)
		if i == 0 && word == w && (strings.Contains(w, "=") || slices.Contains(reserved(), w)) {
			word = "'" + w + "'"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// reserved words of a shell that quote leaves as they are.
func reserved() []string {
	return strings.Fields("if then else elif fi do done case esac while until for in function select time coproc")
}

// quote writes a word so that a shell reads it back, and a person and Runme too: what
// either of them would not see is written in digits.
func quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_./-+=:@%,", r))
	}) {
		return s
	}
	if s == "" {
		return "''"
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		from, hidden := i, hides(s, i)
		for i < len(s) && hides(s, i) == hidden {
			_, n := utf8.DecodeRuneInString(s[i:])
			i += n
		}
		if !hidden {
			b.WriteString("'" + strings.ReplaceAll(s[from:i], "'", `'\''`) + "'")
			continue
		}
		b.WriteString(`"$(printf '`)
		for _, c := range []byte(s[from:i]) {
			fmt.Fprintf(&b, `\%03o`, c)
		}
		b.WriteString(`')"`)
	}
	return b.String()
}

// hides tells whether the character at a place of a script does not show, or makes
// other text show as something else, or is one that Runme drops: blanks at the end of
// a line and a dollar sign at its beginning.
func hides(s string, at int) bool {
	switch r, n := utf8.DecodeRuneInString(s[at:]); {
	case r == '\n':
		return false
	case r == ' ' || r == '\t':
		return strings.HasPrefix(strings.TrimLeft(s[at:], " \t"), "\n")
	case r == '$':
		return at > 0 && s[at-1] == '\n'
	default:
		return !unicode.IsPrint(r) || r == utf8.RuneError && n == 1
	}
}
