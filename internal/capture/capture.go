// Package capture writes down what a build server is while it watches a real
// release build.
//
// The build runs on the machine itself, seen through an overlay: it reads the
// machine's own files and writes into a scratch directory, so that the machine
// stays as it is and everything the build made is in one place. Its source is
// a clean checkout of the committed revision at the working copy's own path;
// its caches and temporary directories are empty, so that every download is
// seen. A kernel tracer names every path that any of its processes used or
// looked for in vain.
//
// Then each path is put into exactly one class ([attributor]), and each class
// into the blueprint in its own way: packages as originals by exact version,
// configuration as plain files for version control, software that no package
// owns as whole trees. What cannot be put anywhere is unexplained, and a
// capture with unexplained paths is not good.
//
// Nothing is written to the working copy here: [Run] returns a [Draft], which
// [Draft.Write] writes once a person has seen its plan, because version control
// cannot forget.
package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"trysail/blueprint"
	"trysail/internal/build"
	"trysail/internal/debian"
	"trysail/internal/depot"
	"trysail/internal/machine"
	"trysail/internal/recorder"
	"trysail/internal/trace"
	"trysail/internal/vcs"
)

// Options say what to capture.
type Options struct {
	State   *machine.State
	Depot   *depot.Depot
	Dir     string // a directory in the working copy
	Name    string // of the blueprint; default: the working copy's name
	Build   string // of the build; default: the blueprint's name
	Command []string
	Outputs []string // globs relative to the root of the working copy
	User    string   // default: who called sudo, else the caller
	Env     []string // NAME or NAME=value to pass beyond the known ones
	Umask   int      // of the caller, and so of the build
	KeepAll bool     // all installed packages, not only those used
	Twice   bool     // run the build again, to tell where it differs from itself
	// Into is the blueprint that this capture is added to, if there is one.
	Into       *blueprint.Blueprint
	IntoSum    blueprint.Sum
	Recipients []string // to encrypt secrets to; else those of Into
	Blueprint  string   // directory the blueprint will be written to, relative to the working copy's root
	Output     io.Writer
	Log        *slog.Logger
	// Step is told what begins; Progress how far it is.
	Step     func(text string)
	Progress func(text string)
	Now      func() time.Time
}

// Attention is one thing that a person should look at.
type Attention struct {
	Item   string `json:"item"`
	Why    string `json:"why"`
	Remedy string `json:"remedy"`
}

// Stats are the numbers of one capture.
type Stats struct {
	Seconds     float64 `json:"seconds"` // the traced build alone
	Events      uint64  `json:"events"`
	LostEvents  uint64  `json:"lost_events"`
	Paths       int     `json:"paths"`
	Packages    int     `json:"packages"`
	Software    int     `json:"software"`
	Config      int     `json:"config"`
	Downloads   int     `json:"downloads"`
	Unexplained int     `json:"unexplained"`
}

// Draft is a finished capture that is not written yet.
type Draft struct {
	Blueprint   *blueprint.Blueprint
	Sum         blueprint.Sum
	Config      map[string][]byte // by the name below the blueprint's directory
	Observation []blueprint.Observed
	Attention   []Attention
	Stats       Stats
	Build       string // name of the build captured
	Root        string // of the working copy
	depot       *depot.Depot
	state       *machine.State
	ws          *vcs.Copy
	recording   *recorder.Recording
	log         *slog.Logger
}

// capture is one run.
type capture struct {
	Options
	db        *debian.Database
	ws        *vcs.Copy
	session   *machine.Session
	user      blueprint.User
	rights    *rights           // of the build's user
	anyone    *rights           // of a user who owns nothing
	uppers    map[string]string // mount point -> upper directory
	checkout  string
	draft     *Draft
	b         *blueprint.Blueprint
	x         *blueprint.Build
	result    *build.Result
	tracked   []string
	recording *recorder.Recording
	dropped   int // packets of the build that nobody answered
	hashes    map[string][2]string
}

func (c *capture) attention(item, why, remedy string) {
	a := Attention{item, why, remedy}
	if !slices.Contains(c.draft.Attention, a) {
		c.draft.Attention = append(c.draft.Attention, a)
	}
}

// Run captures one build. The machine is not changed.
func Run(ctx context.Context, o Options) (d *Draft, err error) {
	c := &capture{Options: o, uppers: map[string]string{}, hashes: map[string][2]string{}}
	c.Step("reading the machine")
	if c.ws, err = vcs.Find(ctx, o.Dir); err != nil {
		return nil, err
	}
	if c.db, err = debian.ReadDatabase("/"); err != nil {
		return nil, err
	}
	defer func() { c.rights.close(); c.anyone.close() }()
	if err := c.describe(); err != nil {
		return nil, err
	}
	if c.session, err = o.State.Begin(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.session.Close()) }()
	if err := c.source(ctx); err != nil {
		return nil, err
	}
	if err := c.build(ctx); err != nil {
		return nil, err
	}
	c.Step("finding out where each path comes from")
	if err := c.attributeAll(ctx); err != nil {
		return nil, err
	}
	if err := c.packages(ctx); err != nil {
		return nil, err
	}
	if err := c.finish(ctx); err != nil {
		return nil, err
	}
	if c.Twice {
		if err := c.draft.Repeat(ctx, RepeatOptions{Output: c.Output, Step: c.Step}); err != nil {
			return nil, err
		}
	}
	return c.draft, nil
}

// describe fills in what is known before the build.
func (c *capture) describe() error {
	c.draft = &Draft{Sum: blueprint.Sum{}, Config: map[string][]byte{}, Root: c.ws.Root, depot: c.Depot, state: c.State, ws: c.ws, log: c.Log}
	b := &blueprint.Blueprint{Trysail: blueprint.Version, Name: c.Name, Captured: c.Now().UTC().Truncate(time.Second)}
	if c.Into != nil {
		b.Recipients, b.Ignore, b.LiveDependencies = c.Into.Recipients, c.Into.Ignore, c.Into.LiveDependencies
		if b.Name == "" {
			b.Name = c.Into.Name
		}
	}
	if len(c.Recipients) > 0 {
		b.Recipients = c.Recipients
	}
	if b.Name == "" {
		b.Name = safeName(filepath.Base(c.ws.Root))
	}
	var err error
	if b.Machine, err = ReadMachine(c.db); err != nil {
		return err
	}
	if b.Users, b.Groups, err = ReadUsers("/"); err != nil {
		return err
	}
	name, err := buildUser(c.User, c.ws.Owner())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(b.Users, func(u blueprint.User) bool { return u.Name == name })
	if i < 0 {
		return fmt.Errorf("user %s is not in /etc/passwd: Trysail seeds a rebuilt machine's users from that file; use --user with one that is", name)
	}
	c.user = b.Users[i]
	if contains(c.ws.Root, c.user.Home) {
		return &HomeError{c.ws.Root, c.user.Name, c.user.Home}
	}
	if err := c.takeRights(b.Groups); err != nil {
		return err
	}
	b.Apt = &blueprint.Apt{Sources: readSources("/", c.rights.readFile)}
	x := blueprint.Build{Name: c.Build, Command: c.Command, Workspace: c.ws.Root, Directory: c.ws.Directory, Source: c.ws.Source, User: c.user.Name, Home: c.user.Home, Outputs: c.Outputs}
	if x.Name == "" {
		x.Name = b.Name
	}
	if c.Into != nil {
		if was := c.Into.Build(x.Name); was != nil {
			x.IgnoreQuery = was.IgnoreQuery // a person wrote it
		}
	}
	for _, name := range []string{b.Name, x.Name} {
		if !blueprint.UsableName(name) {
			return &NameError{name}
		}
	}
	if x.Environment, x.EnvironmentWithheld, err = chooseEnvironment(os.Environ(), c.Env, c.user); err != nil {
		return err
	}
	x.Umask = fmt.Sprintf("%04o", c.Umask)
	if x.Limits, err = readLimits(); err != nil {
		return err
	}
	b.Builds = []blueprint.Build{x}
	c.b, c.x, c.draft.Blueprint, c.draft.Build = b, &b.Builds[0], b, x.Name
	return nil
}

// takeRights takes the rights by which this capture decides what it may keep.
func (c *capture) takeRights(all []blueprint.Group) (err error) {
	var groups []int
	for _, g := range all {
		if slices.Contains(g.Members, c.user.Name) {
			groups = append(groups, g.GID)
		}
	}
	if c.rights, err = rightsOf(c.user.UID, c.user.GID, groups); err != nil {
		return err
	}
	c.anyone, err = rightsOf(stranger, stranger, nil)
	return err
}

// safeName makes a usable name of a directory's or a host's.
func safeName(s string) string {
	words := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' })
	name := strings.Join(words, "-")
	for _, pair := range []string{"..", "-.", ".-"} {
		for strings.Contains(name, pair) {
			name = strings.ReplaceAll(name, pair, pair[:1])
		}
	}
	if name = strings.Trim(name[:min(len(name), 60)], "-."); name == "" {
		return "build"
	}
	return name
}

// contains tells whether a directory is another one, or above it.
func contains(dir, p string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// HomeError says that a working copy holds the home of the build's user: a build sees the
// committed revision in its place, and none of the user's settings and programs.
type HomeError struct{ Root, User, Home string }

func (e *HomeError) Error() string {
	what := "the working copy " + e.Root + " is the home of user " + e.User
	if e.Root != e.Home {
		what = "the working copy " + e.Root + " holds the home of user " + e.User + ", " + e.Home
	}
	return what + ": the build would see the committed files there, and nothing else of the home"
}

// Hint says what to do.
func (e *HomeError) Hint() string {
	return "clone the repository into a directory of its own and capture there, or name another user with --user"
}

// NameError says that a name that a person gave cannot be a blueprint's or a build's.
type NameError struct{ Name string }

func (e *NameError) Error() string { return fmt.Sprintf("the name %q is not usable", e.Name) }

// Hint says what is.
func (e *NameError) Hint() string { return blueprint.NameRemedy }

// source keeps a clean checkout as an original, and lays it out.
func (c *capture) source(ctx context.Context) error {
	c.Step("checking out " + short(c.ws.Source.Revision) + " from " + c.ws.Source.VCS)
	digest, err := PutTree(ctx, c.Depot, func(w io.Writer) error {
		return c.ws.Archive(ctx, c.session.Dir, c.user.UID, c.user.GID, w)
	})
	if err != nil {
		return err
	}
	if n := len(c.ws.Changed) + c.ws.More; n > 0 {
		c.attention(c.ws.Changed[0], fmt.Sprintf("%d file(s) differ from the committed revision and are not in the build", n), "commit them and capture again, if they belong to the release")
	}
	if m := c.ws.Mixture; m != "" {
		c.attention(c.ws.Root, "svnversion says "+m+": the copy mixes revisions (:), other branches (S) or parts of directories (P), and the build gets this mixture, which may not be revision "+c.ws.Source.Revision, "svn update --set-depth infinity, svn switch back, and capture again, to build one revision")
	}
	c.x.Source.Original = digest
	c.draft.Sum[c.x.SourceName()] = digest
	c.checkout, err = build.Source(ctx, c.session, c.Depot, digest, c.user)
	return err
}

// trackedFiles lists what a checkout holds, relative to its root, sorted.
func trackedFiles(dir string) ([]string, error) {
	var list []string
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		list = append(list, rel)
		return err
	})
	slices.Sort(list)
	return list, err
}

func short(rev string) string {
	if len(rev) == 40 {
		return rev[:12]
	}
	return "revision " + rev
}

// networkTrouble says which hosts a failed build may have lacked because a recorder stood
// between, and what to do; "" if it lacked none.
func networkTrouble(list []recorder.Connection) (what, remedy string) {
	var refused []string
	for _, x := range list {
		if x.Why == recorder.TLSRefused && !x.Allowed && !slices.Contains(refused, x.Address) {
			refused = append(refused, x.Address)
		}
	}
	if len(refused) == 0 {
		return "", ""
	}
	hosts := clipList(refused, 3)
	return "a program of the build did not trust the recorder's certificate for " + hosts,
		"let that program use the system's certificate authorities: add a private authority to them (update-ca-certificates) instead of naming its file, or declare the address under live_dependencies, which is reached directly and not recorded"
}

// ownTrouble says which programs of this machine a failed build wanted that listen on the
// loopback, where a build sees only its own; "" if it wanted none.
func ownTrouble(list []trace.Connect, listens func(address string) bool) (what, remedy string) {
	var wanted []string
	for _, x := range list {
		host, port, err := net.SplitHostPort(x.Address)
		if err != nil || x.Network != "tcp" || port == "0" {
			continue
		}
		if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() && listens(x.Address) {
			wanted = append(wanted, x.Address)
		}
	}
	if len(wanted) == 0 {
		return "", ""
	}
	return "the build connects to " + clipList(wanted, 3) + ". A program of this machine listens there, and the build cannot reach it: a build has a loopback (localhost) of its own, and finds what listens on this machine's only at 127.0.0.1 and at ports that the kernel gives to no program by chance",
		"let that program listen at 127.0.0.1 and at a port outside of net.ipv4.ip_local_port_range; or let the build start it"
}

// reachable tells whether a build finds what listens at an address of the machine's loopback.
func reachable(address string, loopback []uint16) bool {
	at, err := netip.ParseAddrPort(address)
	return err == nil && at.Addr().Is4() && slices.Contains(loopback, at.Port())
}

// listens tells whether somebody takes connections at an address of this machine.
func listens(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	return err == nil && c.Close() == nil
}

func (c *capture) build(ctx context.Context) error {
	host, err := mountHost(c.session, c.State, c.ws.Root, "root")
	if err != nil {
		return err
	}
	c.uppers = host.uppers
	tracked, err := trackedFiles(c.checkout)
	if err != nil {
		return err
	}
	c.Step("building: " + strings.Join(c.Command, " "))
	o, err := hostBuild(c.session, c.State, host, c.b, c.x, c.checkout)
	if err != nil {
		return err
	}
	loopback, err := recorder.MachineLoopback()
	if err != nil {
		return err
	}
	rec, err := recorder.Start(ctx, recorder.Options{Loopback: loopback, Store: c.Depot, Live: c.b.LiveDependencies, UID: o.User.UID, Log: c.Log})
	if err != nil {
		return err
	}
	stop := sync.OnceValues(rec.Stop)
	defer stop() //nolint:errcheck // an error of the build is more to the point
	o.Trace, o.Network, o.Output = true, rec, c.Output
	began := time.Now()
	bctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.Progress = func(t *trace.Tracer) { go c.watch(bctx, t, rec) }
	if c.result, err = build.Run(ctx, o); err != nil {
		return err
	}
	cancel()
	recording, err := stop()
	if err != nil {
		return err
	}
	c.dropped = rec.Stats().Blocked
	if code := c.result.Exit.Code; code != 0 {
		network, remedy := networkTrouble(recording.Connections)
		if network == "" {
			network, remedy = ownTrouble(c.result.Trace.Connects, func(a string) bool { return !reachable(a, loopback) && listens(a) })
		}
		return &build.FailedError{Command: c.Command, Exit: *c.result.Exit, Where: "on the captured machine", Network: network, Remedy: remedy}
	}
	if len(c.result.Outputs) == 0 {
		made, err := build.Made(c.checkout, began)
		if err != nil {
			return err
		}
		return &NoOutputError{Globs: c.Outputs, Root: c.ws.Root, Made: made}
	}
	for _, g := range c.result.Unmatched {
		c.attention(g, "this output glob matched nothing", "correct --output, relative to the root of the working copy")
	}
	if len(c.result.Exit.Leftover) > 0 {
		c.attention(c.result.Exit.Leftover[0], fmt.Sprintf("%d process(es) still ran when the build's command ended, and were stopped", len(c.result.Exit.Leftover)), "let the build stop the daemons that it starts")
	}
	c.x.Made, c.x.Seconds = c.result.Outputs, round(c.result.Exit.Duration.Seconds())
	c.tracked = tracked
	return c.recorded(ctx, recording)
}

// recorded keeps what the build asked of the network. What was written to the
// store while the build ran is named here, so that it stays.
func (c *capture) recorded(ctx context.Context, r *recorder.Recording) error {
	c.recording, c.draft.recording = r, r
	c.draft.Stats.Downloads = len(r.Exchanges)
	if len(r.Exchanges) == 0 && len(r.Unknown) == 0 && len(r.Connections) == 0 {
		return nil
	}
	data, err := r.Marshal()
	if err != nil {
		return err
	}
	if c.x.Downloads, err = c.Depot.PutBytes(ctx, data); err != nil {
		return err
	}
	c.draft.Sum[c.x.DownloadsName()] = c.x.Downloads
	for digest := range r.Bodies() {
		c.draft.Sum[blueprint.BodyName(digest)] = digest
	}
	return nil
}

// watch reports how far the traced build is, until ctx ends.
func (c *capture) watch(ctx context.Context, t *trace.Tracer, rec *recorder.Recorder) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.Progress(fmt.Sprintf("%d paths seen, %d downloads", t.Progress(), rec.Stats().Exchanges))
		}
	}
}

func round(s float64) float64 { return float64(int(s*1000+0.5)) / 1000 }
