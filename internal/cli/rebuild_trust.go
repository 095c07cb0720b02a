package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"trysail/blueprint"
	"trysail/internal/account"
	"trysail/internal/rootless"
	"trysail/internal/tree"
	"trysail/internal/vcs"
)

// blueprintAuthor is what a rebuild shows of a blueprint that others can write: whom and
// what the caller would trust.
type blueprintAuthor struct {
	Directory        string           `json:"directory"`
	Why              string           `json:"why"`         // nobody knows who wrote it
	Fingerprint      string           `json:"fingerprint"` // of the blueprint as it is now
	Packages         int              `json:"packages"`    // their scripts run as root in the server
	Software         []string         `json:"software"`
	Config           int              `json:"config"`
	Builds           []blueprintBuild `json:"builds"`
	LiveDependencies []string         `json:"live_dependencies"`
}

type blueprintBuild struct {
	Name    string   `json:"name"`
	User    string   `json:"user"`
	Command []string `json:"command"`
}

// untrustedError says that a blueprint may be a stranger's.
type untrustedError struct{ author blueprintAuthor }

func (e *untrustedError) Error() string {
	return e.author.Why + ": nothing of the blueprint is run before you trust it"
}

func (e *untrustedError) Hint() string {
	return "look at what it would run; to run exactly this blueprint, add --trust " + e.author.Fingerprint
}

// Details are the facts for --json.
func (e *untrustedError) Details() any { return e.author }

// fingerprint names a blueprint with everything that its sum names, by content.
func fingerprint(b *blueprint.Blueprint, sum blueprint.Sum) (string, error) {
	text, err := b.Marshal()
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(append(append(text, 0), sum.Marshal()...))
	return "sha256:" + hex.EncodeToString(h[:]), nil
}

// trusts refuses a blueprint that somebody else than root and the caller can have
// written, unless its fingerprint is among those that were typed.
func (a *app) trusts(dir string, b *blueprint.Blueprint, sum blueprint.Sum, typed []string) error {
	for _, f := range typed {
		if digest, ok := strings.CutPrefix(f, "sha256:"); !ok || len(digest) != 64 {
			return usage("--trust %s: give the blueprint's fingerprint, sha256:…, which trysail rebuild prints", f)
		}
	}
	why, err := callers().stranger(dir)
	if err != nil || why == "" {
		return err
	}
	print, err := fingerprint(b, sum)
	if err != nil || slices.Contains(typed, print) {
		return err
	}
	e := &untrustedError{blueprintAuthor{
		Directory: dir, Why: why, Fingerprint: print, Packages: len(b.Packages), Software: []string{}, Config: len(b.Config),
		Builds: []blueprintBuild{}, LiveDependencies: []string{},
	}}
	for _, s := range b.Software {
		e.author.Software = append(e.author.Software, s.Path)
	}
	for _, x := range b.Builds {
		e.author.Builds = append(e.author.Builds, blueprintBuild{x.Name, x.User, x.Command})
	}
	for _, l := range b.LiveDependencies {
		if !l.Proposed {
			e.author.LiveDependencies = append(e.author.LiveDependencies, l.Name+" ("+l.Kind+" "+l.Address+")")
		}
	}
	a.ui.end()
	a.printAuthor(e.author)
	return e
}

func (a *app) printAuthor(x blueprintAuthor) {
	a.printf("%s\n  blueprint    %s\n", x.Why, x.Fingerprint)
	a.printf("  would run    the scripts of %d packages, as root of the rebuilt server\n", x.Packages)
	for _, b := range x.Builds {
		a.printf("  would run    build %s, as %s, with recorded downloads and no network: %s\n", b.Name, b.User, strings.Join(b.Command, " "))
	}
	if len(x.Software) > 0 {
		a.printf("  lays out     %d trees that no package owns: %s\n", len(x.Software), strings.Join(x.Software, ", "))
	}
	a.printf("  lays out     %d configuration files\n", x.Config)
	for _, l := range x.LiveDependencies {
		a.printf("  asks for     %s\n", l)
	}
}

// people are the users whose files the caller answers for.
type people struct {
	uids []int
	// blind: in a user namespace all other users, root too, have one number.
	blind bool
}

// callers are root, the user of this process, and the one who called sudo.
func callers() people {
	p := people{uids: []int{0, os.Geteuid()}, blind: rootless.Inside()}
	if os.Geteuid() == 0 && !p.blind {
		if uid, err := strconv.Atoi(os.Getenv("SUDO_UID")); err == nil {
			p.uids = append(p.uids, uid)
		}
	}
	return p
}

// stranger says who else can have written the blueprint in a directory; "" if nobody. As
// with git's safe.directory, the caller answers for what the caller keeps: a clone is the
// caller's. A bundle of evidence is its signer's, whoever unpacked it.
func (p people) stranger(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	bundle := filepath.Dir(filepath.Dir(dir))
	if _, err := tree.Lstat(filepath.Join(bundle, "ledger", "events.jsonl")); err == nil {
		return "the blueprint in " + dir + " came with the evidence in " + bundle + ", and its signer is not looked at here (trysail reprove does)", nil
	}
	for _, name := range []string{".", "blueprint.yaml", "blueprint.sum"} {
		if why, err := p.writer(filepath.Join(dir, name), false); err != nil || why != "" {
			return why, err
		}
	}
	for d := filepath.Dir(dir); ; d = filepath.Dir(d) {
		if why, err := p.writer(d, true); err != nil || why != "" || d == "/" {
			return why, err
		}
	}
}

// OthersCopyError says that a drill would run what another user wrote.
type OthersCopyError struct{ Root, Owner string }

func (e *OthersCopyError) Error() string {
	return fmt.Sprintf("the working copy %s belongs to %s, and a drill runs its steps as root of the drill's machines", e.Root, e.Owner)
}

// Hint says what to type.
func (e *OthersCopyError) Hint() string {
	return "look at its runbook, then drill a clone of your own: git clone " + e.Root + "; or let " + e.Owner + " run the drill, with sudo"
}

// own refuses a working copy of somebody whom the caller does not answer for. Whether
// others can write it as well, internal/vcs has looked at.
func (p people) own(w *vcs.Copy) error {
	if owner := w.Owner(); !slices.Contains(p.uids, owner.UID) {
		return &OthersCopyError{w.Root, owner.Name}
	}
	return nil
}

// writer says who else can write a file, or exchange what is in a directory above it.
func (p people) writer(name string, above bool) (string, error) {
	info, err := tree.Lstat(name)
	if err != nil {
		return "", err
	}
	if !slices.Contains(p.uids, info.UID()) && (!above || !p.blind) {
		who := "user " + strconv.Itoa(info.UID())
		if u, err := account.Lookup(info.UID()); err == nil && u.Name != strconv.Itoa(info.UID()) {
			who = u.Name + " (" + who + ")"
		}
		return fmt.Sprintf("%s belongs to %s, not to you", name, who), nil
	}
	if above && info.Mode()&fs.ModeSticky != 0 {
		return "", nil // others cannot rename what is there
	}
	switch mode := info.Mode().Perm(); {
	case mode&0o002 != 0:
		return name + " can be written by every user", nil
	case mode&0o020 == 0:
		return "", nil
	}
	// With an access list, the group's bits are the most that the list gives to anybody.
	if n, err := unix.Lgetxattr(name, "system.posix_acl_access", nil); err == nil && n > 0 {
		return name + " can be written by those in its access list", nil
	}
	if info.GID() == 0 {
		return "", nil
	}
	if u, err := account.Lookup(info.UID()); err == nil && u.Alone(info.GID()) {
		return "", nil
	}
	return fmt.Sprintf("%s can be written by group %d", name, info.GID()), nil
}
