package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"trysail/drill"
	"trysail/internal/build"
	"trysail/internal/tree"
	"trysail/internal/vcs"
)

// ports are where services listen: those that their clients try first.
func port(kind drill.OfHosts) int {
	switch kind {
	case drill.Registry:
		return 5000
	case drill.Git:
		return 9418
	}
	return 80
}

// ServiceDisk is the size of a service's disk, in bytes.
const ServiceDisk = 2 << 30

// Service makes a host that the release needs besides its machines, gives it what is in
// a directory of this host (of a git host: a repository, or a file of [WriteBundle]), and starts it. What answers is the program that
// people run: git's own daemon and docker-registry, from this host; and for a mirror,
// which is any server of files, this program.
func (l *Lab) Service(ctx context.Context, of drill.Service, from string) (*Host, error) {
	h, err := l.Host(HostSpec{Name: of.Name, Disk: ServiceDisk, Plain: of.Kind != drill.Mirror, Service: of.Kind})
	if err != nil {
		return nil, err
	}
	switch of.Kind {
	case drill.Mirror:
		if err := CopyFiles(h.site(), from); err != nil {
			return nil, fmt.Errorf("what %s has: %w", of.Name, err)
		}
		err = h.Start("drill", "mirror", "/var/lib/trysail/site", "/drill/trouble")
	case drill.Registry:
		err = h.startRegistry()
	case drill.Git:
		err = h.startGit(ctx, from)
	default:
		err = fmt.Errorf("the lab has no service %q", of.Kind)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", of.Name, err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err = h.Answers(ctx); err == nil {
			break
		}
		if ctx.Err() != nil || time.Now().After(end) || !h.On() {
			return nil, fmt.Errorf("%s does not begin: %w\n%s", of.Name, err, h.Tail(2000))
		}
	}
	if of.Kind == drill.Registry {
		if err := h.fillRegistry(ctx, from); err != nil {
			return nil, fmt.Errorf("%s: %w", of.Name, err)
		}
	}
	return h, nil
}

// site is where a mirror's files are, on this host.
func (h *Host) site() string { return filepath.Join(h.Disk(), "site") }

// Repository is that of a git host, for whoever is in the lab's network.
func (h *Host) Repository() string { return "git://" + h.Name + "/release" }

func (h *Host) bare() string { return filepath.Join(h.Disk(), "git", "release") }

// Bundle is the name of a file that [Lab.Service] takes instead of a repository.
const Bundle = "release.tar.zst"

// WriteBundle writes a repository's branches and tags for a git host. Scratch is a
// directory of a session.
func WriteBundle(ctx context.Context, repository, scratch string, out io.Writer) error {
	a, err := vcs.Nobody()
	if err != nil {
		return err
	}
	zw, err := zstd.NewWriter(out)
	if err != nil {
		return err
	}
	return errors.Join(vcs.Mirror(ctx, repository, scratch, a.UID, a.GID, zw), zw.Close())
}

// startGit gives a host a repository, and git's daemon. Whoever is in the lab may push
// to it, and as on a team's own server nobody rewrites what is there by a push. Neither
// the daemon nor this program reads the repository as root.
func (h *Host) startGit(ctx context.Context, from string) error {
	if err := os.MkdirAll(h.bare(), 0o755); err != nil {
		return err
	}
	to, err := tree.Open(h.bare())
	if err != nil {
		return err
	}
	defer to.Close()
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	var in io.ReadCloser
	if info.IsDir() {
		pr, pw := io.Pipe()
		go func() { pw.CloseWithError(WriteBundle(ctx, from, h.lab.Dir, pw)) }()
		in = pr
	} else if in, err = os.Open(from); err != nil {
		return err
	}
	defer in.Close()
	if err := build.Extract(ctx, to, in, nil); err != nil {
		return fmt.Errorf("the repository of %s: %w", h.Name, err)
	}
	a, err := vcs.Nobody()
	if err != nil {
		return err
	}
	if err := to.Lchown(".", a.UID, a.GID); err != nil {
		return err
	}
	return h.StartProgram("git", "daemon", "--user="+a.Name, "--reuseaddr", "--export-all", "--enable=receive-pack", "--base-path=/var/lib/trysail/git", "--listen=0.0.0.0", "--port=9418")
}

func (h *Host) startRegistry() error {
	if _, err := exec.LookPath("docker-registry"); err != nil {
		return fmt.Errorf("a registry is the program docker-registry, and this host has none (apt-get install docker-registry): %w", err)
	}
	config := "version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: /var/lib/trysail/registry}\n  delete: {enabled: true}\nhttp: {addr: \":5000\", relativeurls: true}\n"
	file, err := h.Give("registry.yml", []byte(config))
	if err != nil {
		return err
	}
	return h.StartProgram("docker-registry", "serve", file)
}

// fillRegistry pushes what is in a directory: REPOSITORY/TAG/FILE, each file a layer
// as it is, so that its digest is that of the file.
func (h *Host) fillRegistry(ctx context.Context, from string) error {
	files, err := readFiles(from, ServiceDisk)
	if err != nil {
		return err
	}
	layers := map[string][][]byte{}
	for _, f := range files {
		part := strings.Split(f.Name, "/")
		if len(part) != 3 {
			continue
		}
		tag := part[0] + ":" + part[1]
		layers[tag] = append(layers[tag], f.Data)
	}
	if len(layers) == 0 {
		return fmt.Errorf("%s has no REPOSITORY/TAG/FILE", from)
	}
	for _, tag := range slices.Sorted(maps.Keys(layers)) {
		if err := h.push(ctx, tag, layers[tag]...); err != nil {
			return err
		}
	}
	return nil
}

// push lays an image of these layers under a tag.
func (h *Host) push(ctx context.Context, tag string, layers ...[]byte) error {
	ref, err := h.tag(tag)
	if err != nil {
		return err
	}
	img := v1.Image(empty.Image)
	for _, data := range layers {
		if img, err = mutate.Append(img, mutate.Addendum{Layer: static.NewLayer(data, types.OCILayer)}); err != nil {
			return err
		}
	}
	return remote.Write(ref, mutate.MediaType(img, types.OCIManifestSchema1), h.remote(ctx)...)
}

func (h *Host) tag(s string) (name.Tag, error) {
	if repo, tag, ok := strings.Cut(s, ":"); !ok || repo == "" || tag == "" {
		return name.Tag{}, fmt.Errorf("%q is no REPOSITORY:TAG of %s", s, h.Name)
	}
	return name.NewTag(h.Address(port(drill.Registry))+"/"+s, name.Insecure)
}

func (h *Host) remote(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithTransport(h.lab.http())}
}

// http is a way into the lab's network: from the switch, and each request anew.
func (l *Lab) http() *http.Transport {
	return &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		return l.Dial(ctx, &net.Dialer{Timeout: 5 * time.Second}, nil, address)
	}}
}

// get asks a service for something, and gives how much of it came, even where an
// error says that it is not all.
func (h *Host) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.Address(port(h.spec.Service))+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := (&http.Client{Transport: h.lab.http()}).Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", h.Name, res.Status)
	}
	return data, err
}

// network is that of the lab, for programs.
func (l *Lab) network() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(l.sw)) }

// url is where a git host's repository is for whoever knows no names.
func (h *Host) url() string { return "git://" + h.IP + "/release" }

// Answers asks a service for something that it has.
func (h *Host) Answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var err error
	switch h.spec.Service {
	case drill.Mirror:
		_, err = h.get(ctx, "/")
	case drill.Registry:
		_, err = h.get(ctx, "/v2/")
	case drill.Git:
		_, err = vcs.Git(ctx, h.bare(), h.lab.network(), "ls-remote", "--quiet", h.url())
	default:
		err = fmt.Errorf("%s is no service", h.Name)
	}
	return err
}

// largest is the file of a mirror on which it is seen whether all of it comes.
func (h *Host) largest() (path string, size int64, err error) {
	err = filepath.WalkDir(h.site(), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > size {
			path, size = strings.TrimPrefix(p, h.site()), info.Size()
		}
		return err
	})
	if err == nil && size < 4*slowRate {
		err = fmt.Errorf("%s has no file of at least %d bytes, on which it could be seen", h.Name, 4*slowRate)
	}
	return path, size, err
}

// Clone gives the release's source as the team has it: a clone, from a machine's
// place in the network.
func (h *Host) Clone(ctx context.Context, dir string) error {
	return vcs.Clone(ctx, h.url(), dir, h.lab.network())
}

// branches are those of a git host, and what they name.
func (h *Host) branches(ctx context.Context) (map[string]string, error) {
	out, err := vcs.Git(ctx, h.bare(), "", "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads")
	if err != nil {
		return nil, fmt.Errorf("the branches of %s: %w", h.Name, err)
	}
	list := map[string]string{}
	for line := range strings.Lines(out) {
		name, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		list[name] = id
	}
	if len(list) == 0 {
		return nil, errors.New(h.Name + " has no branch")
	}
	return list, nil
}
