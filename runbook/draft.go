package runbook

import (
	"fmt"
	"strings"
	"time"
)

// Draft is what a first runbook is made from.
type Draft struct {
	Title     string
	Blueprint string // directory
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
// plain about what is still to be written.
func (d Draft) Text() []byte {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("---")
	p("budget: 16 person-hours")
	p("roles:")
	p("  build: {blueprint: %s}", d.Blueprint)
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
	var built []string
	if len(d.Builds) > 1 {
		p("## Build")
		p("")
	}
	last := len(d.Builds) - 1
	for i, x := range d.Builds {
		name := stepName(x.Name)
		if i == last {
			break
		}
		built = append(built, name)
		d.step(p, name, x, "")
	}
	p("## Tests")
	p("")
	p("Replace this by what shows that a build is good.")
	p("")
	p("```sh {\"name\":\"test\",\"timeout\":\"1h\",\"budget\":\"5m\"%s}", needs(built))
	p("test -d .")
	p("```")
	p("")
	p("## Gold master")
	p("")
	if last >= 0 {
		x := d.Builds[last]
		name := stepName(x.Name)
		if name == "test" {
			name = "gold"
		}
		d.step(p, name, x, `,"needs":"test","gold":"true"`)
		p("## Due diligence")
		p("")
		p("- [ ] **tested** (@tester, budget 2h, needs %s): the gold master was installed and tried", name)
		p("- [ ] **notes** (@release-manager, budget 1h): release notes and known issues are written")
		p("")
		p("## Ship")
		p("")
		p("Replace this by what publishes the gold master. It runs after every sign-off and sees nothing but gold.")
		p("")
		p("```sh {\"name\":\"publish\",\"kind\":\"publish\",\"timeout\":\"30m\",\"budget\":\"5m\",\"in\":%q,\"needs\":%q}", strings.Join(x.Outputs, ","), name)
		p("sha256sum %s", strings.Join(x.Outputs, " "))
		p("```")
	}
	return []byte(b.String())
}

func (d Draft) step(p func(string, ...any), name string, x DraftBuild, more string) {
	took := max(time.Duration(x.Seconds*float64(time.Second)).Round(time.Minute), time.Minute)
	p("```sh {\"name\":%q,\"role\":\"build\",\"timeout\":%q,\"budget\":%q,\"out\":%q%s}", name, short(4*took+10*time.Minute), short(2*took), strings.Join(x.Outputs, ","), more)
	if x.Directory != "" {
		p("cd %s", quote(x.Directory))
	}
	var words []string
	for _, w := range x.Command {
		words = append(words, quote(w))
	}
	p("%s", strings.Join(words, " "))
	p("```")
	p("")
}

func needs(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return fmt.Sprintf(",\"needs\":%q", strings.Join(list, ","))
}

func short(d time.Duration) string { return strings.TrimSuffix(d.String(), "0s") }

func plainTitle(s string) string { return strings.Join(strings.Fields(s), " ") }

func stepName(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
			b.WriteByte('-')
		}
	}
	if s := strings.Trim(b.String(), "-"); s != "" {
		return s
	}
	return "build"
}

// quote writes a word so that a shell reads it back.
func quote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_./-+=:@%,", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
