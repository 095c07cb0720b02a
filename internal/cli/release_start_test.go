package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"trysail/fleet"
	"trysail/internal/api"
	"trysail/release"
)

const startRunbook = `---
ship: 2036-12-01T09:00:00Z
zone: Europe/Berlin
signers: allowed_signers
roles:
  build: {plain: true}
people:
  ann: {name: Ann Example, email: ann@example.org}
  bob: {name: Bob Example, email: bob@example.org}
approvers: [ann]
---
# Release

## Gold master

` + "```sh {\"name\":\"gold\",\"timeout\":\"5m\",\"out\":\"dist/*\",\"gold\":\"true\"}\nmake\n```" + `

## Sign

- [ ] **tried** (@bob, needs gold): installed and tried
- [ ] **legal** (@ann): licences are fine
`

// Keys of nobody.
const (
	annKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHX9CODgMn6JF/hjQAOz2HHqgV4TwWf30lv7Wd/qSDTx"
	bobKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICQWVM+cDe5F2bqfVbaQ1wRDT6O8xUwDoDpzNS8wfMRr"
)

// startCopy is a committed working copy, in which the test goes on.
func startCopy(t *testing.T, book, signers string) {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	startWrite(t, "RELEASE.md", book)
	startWrite(t, "allowed_signers", signers)
	startWrite(t, "main.c", "one")
	startShell(t, "git init -q -b main . && git add -A && git -c user.name=t -c user.email=t@example.org commit -qm first")
}

func startWrite(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func startShell(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-euc", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// startControl is a control with two machines, which tells ann.
func startControl(t *testing.T) *answering {
	t.Helper()
	return answers(t, map[string]any{
		"/fleet": []api.MachineStatus{{Name: "one", Condition: fleet.Up, Plain: true}, {Name: "two", Condition: fleet.Lost, Plain: true}, {Name: "three", Condition: fleet.Up}},
		"/told":  api.Told{People: []string{"ann"}},
	})
}

// sent is what control was asked to start; nil if it was asked nothing.
func (c *answering) sent(t *testing.T) *api.Start {
	t.Helper()
	for _, text := range c.said {
		if body, is := strings.CutPrefix(text, "/releases "); is {
			var b api.Start
			if err := json.Unmarshal([]byte(body), &b); err != nil {
				t.Fatal(err)
			}
			return &b
		}
	}
	return nil
}

// TestStartTakesTheRevision: what is released is what is committed, and what the working copy
// has beside it is refused, or left out by name.
func TestStartTakesTheRevision(t *testing.T) {
	signers := "ann " + annKey + "\nbob " + bobKey + "\n"
	for _, c := range []struct {
		name, do string
		args     []string
		want     string // of an error
		dirty    string // that is recorded
	}{
		{"as committed", "", nil, "", ""},
		{"a file that no release reads", "echo x > notes.txt", nil, "", ""},
		{"the runbook differs", "echo >> RELEASE.md", nil, "differs from revision", ""},
		{"the signers differ", "sed -i s/ann/eve/ allowed_signers", nil, "allowed_signers", ""},
		{"the source differs", "echo two > main.c", nil, "main.c", ""},
		{"what is to be committed", "echo two > main.c; git add main.c", nil, "main.c", ""},
		{"hidden from git", "git update-index --assume-unchanged RELEASE.md; echo >> RELEASE.md", nil, "RELEASE.md", ""},
		{"removed", "rm allowed_signers", nil, "allowed_signers", ""},
		{"left out", "echo two > main.c; sed -i s/ann/eve/ allowed_signers", []string{"--allow-dirty"}, "", "allowed_signers main.c"},
		{"the runbook is left out", "sed -i 's/make/false/' RELEASE.md", []string{"--allow-dirty"}, "", "RELEASE.md"},
		{"not committed", "git rm -q --cached allowed_signers; git -c user.name=t -c user.email=t@example.org commit -qm less", []string{"--allow-dirty"}, "allowed_signers is not committed", ""},
		{"another runbook that is not committed", "cp RELEASE.md other.md", []string{"--allow-dirty", "--runbook", "other.md"}, "other.md is not committed", ""},
		{"a runbook of elsewhere", "cp RELEASE.md ../other.md", []string{"--runbook", "../other.md"}, "is not in the working copy", ""},
		{"no runbook", "", []string{"--runbook", "none.md"}, "there is no runbook none.md", ""},
		{"a link to the runbook", "mkdir doc; git mv RELEASE.md doc/; ln -s doc/RELEASE.md RELEASE.md; git add -A; git -c user.name=t -c user.email=t@example.org commit -qm moved", nil, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			startCopy(t, startRunbook, signers)
			startShell(t, c.do)
			control := startControl(t)
			_, errs, code := control.run(t, append([]string{"release", "start", "1.0", "--yes"}, c.args...)...)
			st := control.sent(t)
			if c.want != "" {
				if code == exitYes || st != nil || !strings.Contains(errs, c.want) {
					t.Fatalf("exit status %d, sent %v: %s", code, st != nil, errs)
				}
				return
			}
			if code != exitYes || st == nil {
				t.Fatalf("exit status %d: %s", code, errs)
			}
			if got := strings.Join(st.Origin.Uncommitted, " "); got != c.dirty {
				t.Errorf("it records %q as left out", got)
			}
			if st.Origin.Revision != st.Source.Revision || len(st.Origin.Files) != 2 || st.Origin.Files[0] != (release.File{Path: "RELEASE.md", Digest: st.Runbook}) || st.Origin.Files[1].Digest != st.Signers {
				t.Errorf("%+v is not what is committed", st)
			}
		})
	}
}

// TestStartAsks: a person sees what begins, and nothing begins that cannot be meant.
func TestStartAsks(t *testing.T) {
	both := "ann " + annKey + "\nbob " + bobKey + "\n"
	author := strings.Replace(startRunbook, "bob@example.org", "T@example.org", 1) // of startCopy's revision
	for _, c := range []struct {
		name, book, signers string
		args                []string
		code                int
		want                []string
		forced              string
	}{
		{"nobody to ask", startRunbook, both, nil, exitUsage, []string{"needs a confirmation", "--yes"}, ""},
		{"a preview", startRunbook, both, []string{"--yes"}, exitYes, []string{
			"Ships     Mon 1 Dec 2036 10:00 CET", "bob: installed and tried (tried)", "Role      build: one, two", "by t@example.org",
			"sign-off legal stands on no step", "control does not tell bob that they are asked",
		}, ""},
		{"a date that is over", strings.Replace(startRunbook, "2036", "2016", 1), both, []string{"--yes"}, exitFailed, []string{"the ship date Thu 1 Dec 2016 10:00 CET is over", "--force --reason"}, ""},
		{"a date that the runbook does not name", startRunbook, both, []string{"--yes", "--ship", "2036-12-02T09:00:00Z"}, exitFailed, []string{"Tue 2 Dec 2036 10:00 CET is not the one that the runbook names, Mon 1 Dec 2036 10:00 CET"}, ""},
		{"nobody approves", strings.Replace(startRunbook, "approvers: [ann]\n", "", 1), both, []string{"--yes"}, exitFailed, []string{"RELEASE.md: nobody approves", "add approvers: [ann]"}, ""},
		{"nothing is gold", strings.Replace(startRunbook, `,"gold":"true"`, "", 1), both, []string{"--yes"}, exitFailed, []string{"RELEASE.md: no step is gold"}, ""},
		{"the author alone signs", author, both, []string{"--yes"}, exitFailed, []string{"sign-off tried needs 1 approval, and cannot get it: bob wrote what is released", "name other people who sign in RELEASE.md"}, ""},
		{"the author alone approves", strings.Replace(author, "[ann]", "[bob]", 1), both, []string{"--yes"}, exitFailed, []string{"nobody may decide on a failed test, a difference or a late change: of the approvers, bob wrote what is released"}, ""},
		{"the author is one of two who must sign", strings.Replace(strings.Replace(author, "(@bob,", "(2 of @qa,", 1), "approvers:", "groups: {qa: [ann, bob]}\napprovers:", 1), both, []string{"--yes"}, exitFailed, []string{"sign-off tried needs 2 approvals, and cannot get it: bob wrote what is released"}, ""},
		{"one approval of the author's group", strings.Replace(strings.Replace(author, "(@bob,", "(1 of @dev, 1 of @qa,", 1), "approvers:", "groups: {dev: [bob], qa: [ann]}\napprovers:", 1), both, []string{"--yes"}, exitFailed, []string{"sign-off tried needs 2 approvals, and cannot get it: bob wrote what is released"}, ""},
		{"the author is one of two who may sign", strings.Replace(author, "(@bob,", "(@ann, @bob,", 1), both, []string{"--yes"}, exitYes, []string{"sign-off tried: bob wrote what is released"}, ""},
		{"the author is one of two approvers", strings.Replace(strings.Replace(author, "(@bob,", "(@ann,", 1), "[ann]", "[ann, bob]", 1), both, []string{"--yes"}, exitYes, []string{"of the approvers, bob wrote what is released"}, ""},
		{"the author signs without a key", strings.Replace(author, "signers: allowed_signers\n", "", 1), both, []string{"--yes"}, exitFailed, []string{"bob wrote what is released"}, ""},
		{"the same date in other words", startRunbook, both, []string{"--yes", "--ship", "2036-12-01T10:00:00+01:00"}, exitYes, nil, ""},
		{"forced", startRunbook, both, []string{"--yes", "--ship", "2036-12-02T09:00:00Z", "--force", "--reason", "the fair moved"}, exitYes, nil, "the fair moved"},
		{"forced without a reason", startRunbook, both, []string{"--yes", "--force"}, exitUsage, []string{"--force and --reason go together"}, ""},
		{"no key of a signer", startRunbook, "ann " + annKey + "\nbop " + bobKey + "\n", []string{"--yes"}, exitFailed, []string{"sign-off tried needs 1 approval, and cannot get it: bob has no key in allowed_signers"}, ""},
		{"a key that ends too early", startRunbook, "ann " + annKey + "\nbob valid-before=\"20360101Z\" " + bobKey + "\n", []string{"--yes"}, exitFailed, []string{"the key of bob (line 2 of allowed_signers) ends on Tue 1 Jan 2036 01:00 CET"}, ""},
		{"a key for something else", startRunbook, "ann " + annKey + "\nbob namespaces=\"git\" " + bobKey + "\n", []string{"--yes"}, exitFailed, []string{"is not for namespace sign-off@trysail"}, ""},
		{"a typing error", startRunbook, "ann " + annKey + "\nbob sh-ed25519 AAAA\n", []string{"--yes"}, exitFailed, []string{"allowed_signers:2:"}, ""},
		{"a key by its address", startRunbook, "ann@example.org " + annKey + "\nbob@example.org " + bobKey + "\n", []string{"--yes"}, exitYes, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			startCopy(t, c.book, c.signers)
			control := startControl(t)
			_, errs, code := control.run(t, append([]string{"release", "start", "1.0"}, c.args...)...)
			for _, want := range c.want {
				if !strings.Contains(errs, want) {
					t.Errorf("it does not say %q", want)
				}
			}
			st := control.sent(t)
			if code != c.code || (st != nil) != (code == exitYes) {
				t.Fatalf("exit status %d, sent %v: %s", code, st != nil, errs)
			}
			if st != nil && st.Forced != c.forced {
				t.Errorf("it is forced: %q", st.Forced)
			}
		})
	}
}

// TestCheckFleet: what is missing is found before a release starts.
func TestCheckFleet(t *testing.T) {
	both := "ann " + annKey + "\nbob " + bobKey + "\n"
	for _, c := range []struct {
		name, author, signers string
		machines              []api.MachineStatus
		code                  int
		want                  string
	}{
		{"all is there", "", both, []api.MachineStatus{{Name: "one", Plain: true}, {Name: "two", Plain: true}}, exitYes, "RELEASE.md reads one way"},
		{"no machine", "", both, nil, exitNo, "no machine runs steps of role build"},
		{"none that runs plainly", "", both, []api.MachineStatus{{Name: "one"}, {Name: "two"}}, exitNo, "sudo trysail agent --join link --plain"},
		{"one machine for gold", "", both, []api.MachineStatus{{Name: "one", Plain: true}, {Name: "two", Plain: true, Condition: fleet.Retired}, {Name: "three", Plain: true, Serves: []string{"office"}}}, exitNo, "one machine runs steps of role build, and gold is built again on a second"},
		{"no key", "", "ann " + annKey + "\n", []api.MachineStatus{{Name: "one", Plain: true}, {Name: "two", Plain: true}}, exitNo, "RELEASE.md:22: sign-off tried needs 1 approval"},
		{"the author alone signs", "bob", both, []api.MachineStatus{{Name: "one", Plain: true}, {Name: "two", Plain: true}}, exitNo, "RELEASE.md:22: sign-off tried needs 1 approval, and cannot get it: bob wrote what is released"},
		{"the author is nobody's name", "Bobby", both, []api.MachineStatus{{Name: "one", Plain: true}, {Name: "two", Plain: true}}, exitYes, "RELEASE.md reads one way"},
		{"a typing error", "", "ann " + annKey + "\nbob valid-before=2036 " + bobKey + "\n", nil, exitNo, "allowed_signers:2:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			startWrite(t, "RELEASE.md", startRunbook)
			startWrite(t, filepath.Join(".", "allowed_signers"), c.signers)
			if c.author != "" {
				startShell(t, "git init -q -b main && git add -A && git -c user.name=t -c user.email="+c.author+" commit -qm first")
			}
			control := startControl(t)
			control.answers["/fleet"] = c.machines
			if c.machines == nil {
				control.answers["/fleet"] = []api.MachineStatus{}
			}
			out, errs, code := control.run(t, "runbook", "check", "--fleet")
			if code != c.code || !strings.Contains(out, c.want) {
				t.Errorf("exit status %d: %s%s", code, out, errs)
			}
		})
	}
}
