// Package blueprint says what a build server is.
//
// A blueprint is the definition of one build server as plain files that live in
// the team's own version control, in a directory usually called trysail/:
//
//	blueprint.yaml   the machine: packages, software, configuration, users, builds
//	blueprint.sum    the digest of every original; checkable with sha256sum -c
//	config/…         configuration files at their own paths
//	REBUILD.md       the rebuild as a document, for the day Trysail is gone
//
// The files are the truth and the tool is a convenience: whatever rebuild does,
// a person can do from REBUILD.md, because both are made from the same [Plan].
//
// The package is pure: it parses bytes, decides and renders bytes. Reading a
// machine is the work of internal/capture, making one of internal/rebuild.
//
// Parsing is strict. A blueprint is read on the worst day of the year, possibly
// from a torn disk or after a bad merge, and an unknown or repeated key there
// is a sign of damage, not an extension: it is refused with file, line and
// remedy. Every path is checked to be absolute and clean, every digest to be a
// digest, so that code further down can rely on it.
//
// Every path that a captured build touched is in exactly one [Class], and the
// observation (kept in the depot, its digest in the blueprint) lists each with
// the item that provides it. This is what lets a proof name the item that is
// missing, rather than only report that a build failed.
package blueprint

import (
	"cmp"
	"path"
	"slices"
	"strings"
	"time"
)

// Version is the value of the key "trysail" in every blueprint of this format.
const Version = "blueprint/v1"

// Blueprint is the definition of one build server.
type Blueprint struct {
	Trysail  string    `yaml:"trysail" json:"trysail"`
	Name     string    `yaml:"name" json:"name"`
	Captured time.Time `yaml:"captured" json:"captured"`
	// Unobserved is true for a draft made without watching a build (inspect).
	Unobserved bool    `yaml:"unobserved,omitempty" json:"unobserved,omitempty"`
	Machine    Machine `yaml:"machine" json:"machine"`
	// Recipients are age recipients or SSH public keys that secrets are encrypted to.
	Recipients       []string         `yaml:"recipients,omitempty" json:"recipients,omitempty"`
	Builds           []Build          `yaml:"builds,omitempty" json:"builds,omitempty"`
	LiveDependencies []LiveDependency `yaml:"live_dependencies,omitempty" json:"live_dependencies,omitempty"`
	Packages         []Package        `yaml:"packages" json:"packages"`
	Software         []Software       `yaml:"software,omitempty" json:"software,omitempty"`
	Config           []File           `yaml:"config,omitempty" json:"config,omitempty"`
	Generated        []File           `yaml:"generated,omitempty" json:"generated,omitempty"`
	Directories      []Directory      `yaml:"directories,omitempty" json:"directories,omitempty"`
	Overrides        []Override       `yaml:"overrides,omitempty" json:"overrides,omitempty"`
	Alternatives     []Alternative    `yaml:"alternatives,omitempty" json:"alternatives,omitempty"`
	Diversions       []Diversion      `yaml:"diversions,omitempty" json:"diversions,omitempty"`
	Users            []User           `yaml:"users,omitempty" json:"users,omitempty"`
	Groups           []Group          `yaml:"groups,omitempty" json:"groups,omitempty"`
	Apt              *Apt             `yaml:"apt,omitempty" json:"apt,omitempty"`
	// Units are systemd units, timers and cron entries that name files the
	// builds touched: for information, a rebuilt server starts none of them.
	Units []Unit `yaml:"units,omitempty" json:"units,omitempty"`
	// Withheld are files that were left out because they are secrets and no
	// recipient was given to encrypt them to, or because the build's user may
	// not read them.
	Withheld []Withheld `yaml:"withheld,omitempty" json:"withheld,omitempty"`
	// Ignore are the team's own named rules for paths that need not be captured.
	Ignore []IgnoreRule `yaml:"ignore,omitempty" json:"ignore,omitempty"`
}

// Machine is what the captured machine is, as far as a build can tell.
type Machine struct {
	Distribution string   `yaml:"distribution" json:"distribution"` // ID of os-release: debian, ubuntu
	Release      string   `yaml:"release" json:"release"`           // VERSION_ID of os-release
	Codename     string   `yaml:"codename,omitempty" json:"codename,omitempty"`
	Architecture string   `yaml:"architecture" json:"architecture"` // dpkg's name: amd64, arm64
	Foreign      []string `yaml:"foreign_architectures,omitempty" json:"foreign_architectures,omitempty"`
	Hostname     string   `yaml:"hostname" json:"hostname"`
	// Identity tells two machines apart without naming them: sha256 over what
	// does not change while a machine is the same machine.
	Identity string `yaml:"identity" json:"identity"`
	// MergedUsr lists the top-level links into /usr (bin, lib, lib64, sbin …).
	MergedUsr []string `yaml:"merged_usr,omitempty" json:"merged_usr,omitempty"`
	Timezone  string   `yaml:"timezone,omitempty" json:"timezone,omitempty"`
	Locale    string   `yaml:"locale,omitempty" json:"locale,omitempty"`
	// Kernel and CPU are facts for information: a rebuilt server runs on the
	// kernel of the machine that hosts it.
	Kernel string `yaml:"kernel,omitempty" json:"kernel,omitempty"`
	CPU    string `yaml:"cpu,omitempty" json:"cpu,omitempty"`
}

// Build is one recorded build on the machine; several may share one machine.
type Build struct {
	Name      string            `yaml:"name" json:"name"`
	Command   []string          `yaml:"command,flow" json:"command"`
	Workspace string            `yaml:"workspace" json:"workspace"`                     // root of the working copy
	Directory string            `yaml:"directory,omitempty" json:"directory,omitempty"` // where the command ran, below Workspace; "" is its root
	Source    Source            `yaml:"source" json:"source"`
	User      string            `yaml:"user" json:"user"`
	Home      string            `yaml:"home" json:"home"`
	Umask     string            `yaml:"umask" json:"umask"`                       // octal, "0022"
	Limits    map[string]string `yaml:"limits,omitempty" json:"limits,omitempty"` // RLIMIT_NOFILE: "1024:4096"
	// NoNewPrivileges: the build started no set-user-ID or set-group-ID program such as
	// sudo, so none works in its proof and its steps. Older blueprints do not say.
	NoNewPrivileges bool              `yaml:"no_new_privileges,omitempty" json:"no_new_privileges,omitempty"`
	Environment     map[string]string `yaml:"environment,omitempty" json:"environment,omitempty"`
	// EnvironmentWithheld names variables of the captured shell that were not
	// passed to the build, because no rule or --env named them.
	EnvironmentWithheld []string `yaml:"environment_withheld,omitempty" json:"environment_withheld,omitempty"`
	Outputs             []string `yaml:"outputs" json:"outputs"` // globs below Workspace
	Made                []Output `yaml:"made,omitempty" json:"made,omitempty"`
	// Downloads is the digest of the recording of what the build downloaded.
	Downloads string `yaml:"downloads,omitempty" json:"downloads,omitempty"`
	// IgnoreQuery names parameters of query strings that are new each time. A request of the
	// proof gets the recorded answer of the same address with other values of them.
	IgnoreQuery []string `yaml:"ignore_query,omitempty,flow" json:"ignore_query,omitempty"`
	// Observation is the digest of the list of every path the build touched.
	Observation string  `yaml:"observation,omitempty" json:"observation,omitempty"`
	Seconds     float64 `yaml:"seconds,omitempty" json:"seconds,omitempty"` // duration of the captured build
	// Differs lists where the build, run twice on the captured machine, differed from itself.
	Differs []Difference `yaml:"differs_from_itself,omitempty" json:"differs_from_itself,omitempty"`
	// Repeated is true when the build was run twice on the captured machine.
	Repeated bool `yaml:"repeated,omitempty" json:"repeated,omitempty"`
}

// Source is the revision that was built, kept in the depot.
type Source struct {
	VCS      string `yaml:"vcs" json:"vcs"` // git, svn
	URL      string `yaml:"url,omitempty" json:"url,omitempty"`
	Revision string `yaml:"revision" json:"revision"`
	Original string `yaml:"original" json:"original"` // digest of the source as tar.zst
}

// Output is one file the build made.
type Output struct {
	Path   string `yaml:"path" json:"path"` // below Workspace
	SHA256 string `yaml:"sha256" json:"sha256"`
	Size   int64  `yaml:"size" json:"size"`
	Mode   string `yaml:"mode" json:"mode"`
	Link   string `yaml:"link,omitempty" json:"link,omitempty"`
	// Again is the digest of what the second build on the captured machine made
	// there, if the build was repeated and this differs.
	Again string `yaml:"again,omitempty" json:"again,omitempty"`
}

// Difference says where two outputs of one build differ and why.
type Difference struct {
	Path  string `yaml:"path" json:"path"`
	What  string `yaml:"what" json:"what"`
	Cause string `yaml:"cause,omitempty" json:"cause,omitempty"`
}

// LiveDependency is something a build needs that cannot be captured.
type LiveDependency struct {
	Name     string `yaml:"name" json:"name"`
	Kind     string `yaml:"kind" json:"kind"`                             // tcp, udp, unix, device, file, other
	Address  string `yaml:"address" json:"address"`                       // host:port, socket or device path
	Proposed bool   `yaml:"proposed,omitempty" json:"proposed,omitempty"` // found by capture, not yet confirmed: not allowed in a proof
	Why      string `yaml:"why,omitempty" json:"why,omitempty"`
	Owner    string `yaml:"owner,omitempty" json:"owner,omitempty"`
	Expires  string `yaml:"expires,omitempty" json:"expires,omitempty"` // YYYY-MM-DD
	Fallback string `yaml:"fallback,omitempty" json:"fallback,omitempty"`
}

// Trouble says what is wrong with a live dependency on a day, and what to do
// about it; "" if nothing is.
func (l *LiveDependency) Trouble(day time.Time) (why, remedy string) {
	const confirm = "if the release needs it, confirm it under live_dependencies (owner, expires, fallback) and remove \"proposed\"; else build without it"
	then := l.Fallback
	if then == "" {
		then = "find another way"
	}
	ask := l.Owner
	if ask == "" {
		ask = "its owner"
	}
	switch today := day.UTC().Format(time.DateOnly); {
	case l.Proposed:
		return "capture proposed this live dependency, and nobody has confirmed it: a proof does not let the build reach it", confirm
	case l.Expires != "" && l.Expires < today:
		return "this live dependency expired on " + l.Expires, "ask " + ask + " to renew it, and write the new date under live_dependencies; else: " + then
	case l.Owner == "" || l.Fallback == "":
		return "nobody has said who owns this live dependency, or what to do without it", "give it an owner and a fallback under live_dependencies"
	case l.Expires != "" && l.Expires <= day.UTC().AddDate(0, 0, 30).Format(time.DateOnly):
		return "this live dependency expires on " + l.Expires, "ask " + ask + " to renew it; else: " + then
	}
	return "", ""
}

// Package is one installed package; its original is deb/FILE in blueprint.sum.
type Package struct {
	Name         string `yaml:"name" json:"name"`
	Version      string `yaml:"version" json:"version"`
	Architecture string `yaml:"arch" json:"arch"`
	File         string `yaml:"file" json:"file"` // name of the original below deb/
	Essential    bool   `yaml:"essential,omitempty" json:"essential,omitempty"`
	// Why is "used" when the build touched it, "needed" when another package depends on it, "kept" otherwise.
	Why string `yaml:"why" json:"why"`
	// Repacked says why the package had to be made again from installed files.
	Repacked string `yaml:"repacked,omitempty" json:"repacked,omitempty"`
	// Lacks names dependencies that the captured machine did not have either:
	// somebody installed the package by force.
	Lacks []string `yaml:"lacks,omitempty" json:"lacks,omitempty"`
	// Held is true for a package that apt is not to upgrade (apt-mark hold).
	Held bool `yaml:"held,omitempty" json:"held,omitempty"`
}

// Software is a tree (or one file) that no package owns; its original is
// software/FILE in blueprint.sum, a tar.zst with names relative to /.
type Software struct {
	Path  string `yaml:"path" json:"path"`
	File  string `yaml:"file" json:"file"`
	Files int    `yaml:"files" json:"files"`
	Size  int64  `yaml:"size" json:"size"` // bytes of its regular files
}

// File is one configuration or generated file, or link, and where it stood.
type File struct {
	Path  string `yaml:"path" json:"path"`
	Mode  string `yaml:"mode,omitempty" json:"mode,omitempty"` // octal permission bits; empty for links
	Owner string `yaml:"owner" json:"owner"`                   // user:group by name
	// Link is the target when the file is a symbolic link.
	Link   string `yaml:"link,omitempty" json:"link,omitempty"`
	SHA256 string `yaml:"sha256,omitempty" json:"sha256,omitempty"`
	// Absent is true for a file of a package that the administrator removed.
	Absent bool `yaml:"absent,omitempty" json:"absent,omitempty"`
	// Modified is when the content last changed. Older blueprints do not say.
	Modified time.Time `yaml:"modified,omitempty" json:"modified,omitzero"`
	// Encrypted is true when config/PATH.age holds the file, encrypted to the recipients.
	Encrypted bool `yaml:"encrypted,omitempty" json:"encrypted,omitempty"`
	// Why says what makes it the machine's own: "changed conffile of openssl", "unowned", "generated by locale-gen".
	Why string `yaml:"why" json:"why"`
}

// HasContent tells a file with bytes of its own in blueprint.sum from a link, and from one
// that is not there.
func (f File) HasContent() bool { return f.Link == "" && !f.Absent }

// Directory is a directory that no package owns and the build looked at.
type Directory struct {
	Path  string `yaml:"path" json:"path"`
	Mode  string `yaml:"mode" json:"mode"`
	Owner string `yaml:"owner" json:"owner"`
}

// Override is a file or directory whose mode, owner or attributes are not those that its package
// gives it, or a configuration file that has attributes.
type Override struct {
	Path  string `yaml:"path" json:"path"`
	Mode  string `yaml:"mode" json:"mode"` // octal permission bits
	Owner string `yaml:"owner" json:"owner"`
	// Attributes are the extended attributes: access lists, capabilities, those of users.
	Attributes []Attribute `yaml:"attributes,omitempty" json:"attributes,omitempty"`
	// Why says what the package gives it.
	Why string `yaml:"why" json:"why"`
}

// Attribute is an extended attribute of a file.
type Attribute struct {
	Name  string `yaml:"name" json:"name"`
	Value string `yaml:"value" json:"value"` // in base64
}

// Alternative is one update-alternatives group as the administrator left it.
type Alternative struct {
	Name   string `yaml:"name" json:"name"`
	Link   string `yaml:"link" json:"link"`
	Value  string `yaml:"value" json:"value"`
	Manual bool   `yaml:"manual,omitempty" json:"manual,omitempty"`
	// Priority and Slaves register Value anew where no package does.
	Priority int     `yaml:"priority" json:"priority"`
	Slaves   []Slave `yaml:"slaves,omitempty" json:"slaves,omitempty"`
}

// Slave is a link that follows an alternative.
type Slave struct {
	Name string `yaml:"name" json:"name"`
	Link string `yaml:"link" json:"link"`
	Path string `yaml:"path" json:"path"`
}

// Diversion is a dpkg-divert made by the administrator rather than a package.
type Diversion struct {
	From string `yaml:"from" json:"from"`
	To   string `yaml:"to" json:"to"`
}

// User is one line of passwd(5); passwords are never kept.
type User struct {
	Name  string `yaml:"name" json:"name"`
	UID   int    `yaml:"uid" json:"uid"`
	GID   int    `yaml:"gid" json:"gid"`
	Gecos string `yaml:"gecos,omitempty" json:"gecos,omitempty"`
	Home  string `yaml:"home" json:"home"`
	Shell string `yaml:"shell" json:"shell"`
}

// Group is one line of group(5).
type Group struct {
	Name    string   `yaml:"name" json:"name"`
	GID     int      `yaml:"gid" json:"gid"`
	Members []string `yaml:"members,omitempty,flow" json:"members,omitempty"`
}

// Apt is where the machine's packages came from.
type Apt struct {
	Sources []AptSource `yaml:"sources,omitempty" json:"sources,omitempty"`
	// Files are the apt configuration, pins and keyrings, for information and drift.
	Files []AptFile `yaml:"files,omitempty" json:"files,omitempty"`
}

// AptSource is one source; credentials in its addresses are left out.
type AptSource struct {
	Types      []string `yaml:"types,flow" json:"types"`
	URIs       []string `yaml:"uris,flow" json:"uris"`
	Suites     []string `yaml:"suites,flow" json:"suites"`
	Components []string `yaml:"components,flow,omitempty" json:"components,omitempty"`
	SignedBy   string   `yaml:"signed_by,omitempty" json:"signed_by,omitempty"`
}

// AptFile is one file of apt's configuration.
type AptFile struct {
	Path   string `yaml:"path" json:"path"`
	SHA256 string `yaml:"sha256" json:"sha256"`
}

// Unit is a systemd unit, timer or cron entry that names files the build touched.
type Unit struct {
	Path  string   `yaml:"path" json:"path"`
	Names []string `yaml:"names,flow" json:"names"`
}

// Withheld is a file that was left out, and why.
type Withheld struct {
	Path string `yaml:"path" json:"path"`
	Why  string `yaml:"why" json:"why"`
}

// IgnoreRule is a named rule of the team: paths that match Glob need not be captured.
type IgnoreRule struct {
	Name string `yaml:"name" json:"name"`
	Glob string `yaml:"glob" json:"glob"`
	Why  string `yaml:"why" json:"why"`
}

// DebName gives the name of a package's original in blueprint.sum and the depot.
func (p Package) DebName() string { return "deb/" + p.File }

// Key names the package as dpkg does, with its architecture.
func (p Package) Key() string { return p.Name + ":" + p.Architecture }

// OriginalName gives the name of a software tree's original in blueprint.sum.
func (s Software) OriginalName() string { return "software/" + s.File }

// ConfigName gives the place of a configuration file below the blueprint's
// directory. The machine's path is kept readable; encrypted files end in .age.
func (f File) ConfigName() string {
	name := "config" + f.Path
	if f.Encrypted {
		name += ".age"
	}
	return name
}

// GeneratedName gives the name of a generated file's original.
func (f File) GeneratedName() string { return "generated" + f.Path }

// SourceName gives the name of the build's source in blueprint.sum.
func (b Build) SourceName() string { return "source/" + b.Name + ".tar.zst" }

// DownloadsName gives the name of the build's recording in blueprint.sum.
func (b Build) DownloadsName() string { return "downloads/" + b.Name + ".json" }

// BodyName gives the name of a recorded download's body in blueprint.sum.
func BodyName(digest string) string {
	return "downloads/bodies/" + strings.TrimPrefix(digest, "sha256:")
}

// ObservationName gives the name of the build's observation in blueprint.sum.
func (b Build) ObservationName() string { return "observation/" + b.Name + ".jsonl" }

// WorkDirectory is where the command runs.
func (b Build) WorkDirectory() string { return path.Join(b.Workspace, b.Directory) }

// Build returns the named build, or nil.
func (b *Blueprint) Build(name string) *Build {
	for i := range b.Builds {
		if b.Builds[i].Name == name {
			return &b.Builds[i]
		}
	}
	return nil
}

// Reference is the depot's name for this blueprint.
func (b *Blueprint) Reference() string { return "blueprint/" + b.Name }

// Sort puts every list in its canonical order, so that two captures of one
// machine give the same bytes and a review shows only what changed.
func (b *Blueprint) Sort() {
	slices.SortFunc(b.Builds, func(x, y Build) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(b.LiveDependencies, func(x, y LiveDependency) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(b.Packages, func(x, y Package) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.Architecture, y.Architecture))
	})
	slices.SortFunc(b.Software, func(x, y Software) int { return strings.Compare(x.Path, y.Path) })
	byPath := func(x, y File) int { return strings.Compare(x.Path, y.Path) }
	slices.SortFunc(b.Config, byPath)
	slices.SortFunc(b.Generated, byPath)
	slices.SortFunc(b.Directories, func(x, y Directory) int { return strings.Compare(x.Path, y.Path) })
	slices.SortFunc(b.Alternatives, func(x, y Alternative) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(b.Overrides, func(x, y Override) int { return strings.Compare(x.Path, y.Path) })
	slices.SortFunc(b.Diversions, func(x, y Diversion) int { return strings.Compare(x.From, y.From) })
	slices.SortFunc(b.Users, func(x, y User) int { return cmp.Or(cmp.Compare(x.UID, y.UID), strings.Compare(x.Name, y.Name)) })
	slices.SortFunc(b.Groups, func(x, y Group) int { return cmp.Or(cmp.Compare(x.GID, y.GID), strings.Compare(x.Name, y.Name)) })
	slices.SortFunc(b.Units, func(x, y Unit) int { return strings.Compare(x.Path, y.Path) })
	slices.SortFunc(b.Withheld, func(x, y Withheld) int { return strings.Compare(x.Path, y.Path) })
}
