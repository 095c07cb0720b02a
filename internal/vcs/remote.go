package vcs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"trysail/internal/account"
)

// nobody is the user of the kernel's overflow number, who owns nothing else.
const nobody = 65534

// Nobody is the account that works on repositories which are no person's, such as those of a drill.
func Nobody() (account.Account, error) { return account.Lookup(nobody) }

// Mirror writes a bare repository with the branches and tags of the repository in dir,
// as a tar stream with these owners. It takes pushes that rewrite nothing. Scratch is as in
// [Copy.Archive].
func Mirror(ctx context.Context, dir, scratch string, uid, gid int, w io.Writer) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	c := &Copy{Root: dir}
	if c.owner, err = owner(dir); err != nil {
		return err
	}
	return c.stream(ctx, scratch, request{Do: doMirror, Mark: ".git"}, entries{uid: uid, gid: gid, time: time.Unix(0, 0), bare: true}, w)
}

// Clone clones what a git server has into dir, which must not exist and becomes
// [Nobody]'s. The network is that of [account.Options].
func Clone(ctx context.Context, url, dir, network string) error {
	a, err := Nobody()
	if err != nil {
		return err
	}
	if err := a.MakeTemp(dir); err != nil {
		return err
	}
	_, err = Git(ctx, dir, network, "clone", "--quiet", url, ".")
	return err
}

// Git runs git as [Nobody] in a directory of that account, and gives what it prints. It may talk
// to git servers in a network namespace.
func Git(ctx context.Context, dir, network string, args ...string) (string, error) {
	a, err := Nobody()
	if err != nil {
		return "", err
	}
	o := account.Options{Temp: dir, Dir: account.TempPath(dir), Network: network, Env: variables(append(settings(), [2]string{"protocol.git.allow", "always"}))}
	cmd := a.Command(ctx, o, "git", args...)
	out, said := &capped{most: 64 << 20}, &tail{most: 8 << 10}
	cmd.Stdout, cmd.Stderr = out, said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, lines(string(said.data)))
	}
	return strings.TrimSpace(out.String()), nil
}

// capped takes so much and no more.
type capped struct {
	bytes.Buffer
	most int
}

func (c *capped) Write(p []byte) (int, error) {
	if c.Len()+len(p) > c.most {
		return 0, fmt.Errorf("more than %d bytes are printed", c.most)
	}
	return c.Buffer.Write(p)
}
