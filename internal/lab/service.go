package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"trysail/drill"
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
// a directory of this host (of a git host: a repository, or a bundle), and starts it. What answers is the program that
// people run: git's own daemon and docker-registry, from this host; and for a mirror,
// which is any server of files, this program.
func (l *Lab) Service(ctx context.Context, of drill.Service, from string) (*Host, error) {
	h, err := l.Host(HostSpec{Name: of.Name, Disk: ServiceDisk, Plain: of.Kind != drill.Mirror, Service: of.Kind})
	if err != nil {
		return nil, err
	}
	switch of.Kind {
	case drill.Mirror:
		// What a link names is copied: a file that is changed is never anybody's own.
		if out, err := exec.CommandContext(ctx, "cp", "--recursive", "--dereference", "--preserve=mode,timestamps", "--no-target-directory", from, h.site()).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("copy %s: %w: %s", from, err, bytes.TrimSpace(out))
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

// startGit gives a host a repository, and git's daemon. Whoever is in the lab may push
// to it, and as on a team's own server nobody rewrites what is there by a push.
func (h *Host) startGit(ctx context.Context, from string) error {
	if err := os.MkdirAll(filepath.Dir(h.bare()), 0o755); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"clone", "--quiet", "--bare", "--no-hardlinks", from, h.bare()},
		{"-C", h.bare(), "config", "receive.denyNonFastForwards", "true"},
		{"-C", h.bare(), "config", "receive.denyDeletes", "true"},
		{"-C", h.bare(), "config", "uploadpack.allowAnySHA1InWant", "true"},
		{"-C", h.bare(), "remote", "remove", "origin"},
	} {
		if out, err := exec.CommandContext(ctx, "git", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	return h.StartProgram("git", "daemon", "--reuseaddr", "--export-all", "--enable=receive-pack", "--base-path=/var/lib/trysail/git", "--listen=0.0.0.0", "--port=9418")
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
	dirs, err := filepath.Glob(filepath.Join(from, "*", "*"))
	if err != nil {
		return err
	}
	if len(dirs) == 0 {
		return fmt.Errorf("%s has no REPOSITORY/TAG/FILE", from)
	}
	for _, dir := range dirs {
		files, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		var layers [][]byte
		for _, f := range files {
			data, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				return err
			}
			layers = append(layers, data)
		}
		if err := h.push(ctx, filepath.Base(filepath.Dir(dir))+":"+filepath.Base(dir), layers...); err != nil {
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

// git runs it in the lab's network.
func (l *Lab) git(ctx context.Context, args ...string) (string, error) {
	net := fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), int(l.sw))
	out, err := exec.CommandContext(ctx, "nsenter", append([]string{net, "git"}, args...)...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		err = fmt.Errorf("git %s: %w: %s", args[0], err, text)
	}
	return text, err
}

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
		_, err = h.lab.git(ctx, "ls-remote", "--quiet", h.url())
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
	_, err := h.lab.git(ctx, "clone", "--quiet", h.url(), dir)
	return err
}

// branches are those of a git host, and what they name.
func (h *Host) branches(ctx context.Context) (map[string]string, error) {
	out, err := exec.CommandContext(ctx, "git", "-C", h.bare(), "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads").Output()
	if err != nil {
		return nil, fmt.Errorf("the branches of %s: %w", h.Name, err)
	}
	list := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		list[name] = id
	}
	if len(list) == 0 {
		return nil, errors.New(h.Name + " has no branch")
	}
	return list, nil
}
