package vcs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// Own refuses a working copy that is not the caller's alone: the hooks and filters that it
// names would run as the caller.
func Own(root, mark string) error {
	var st syscall.Stat_t
	if err := syscall.Lstat(root, &st); err != nil {
		return &os.PathError{Op: "find the owner of", Path: root, Err: err}
	}
	if os.Geteuid() == 0 && st.Uid != 0 {
		return &RefusedError{root, fmt.Sprintf("it belongs to user %d, and its hooks must not run as root", st.Uid), fmt.Sprintf("type the same as that user: sudo -u '#%d' trysail …", st.Uid)}
	}
	return trusted(root, mark)
}

// InOwn is git or svn in a working copy of the caller's own (see [Own]), with the
// team's hooks and settings. Of the environment, what git sets for hooks is left
// out: it leads to the repository of the hook. Messages are in English.
func InOwn(ctx context.Context, root, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = root
	cmd.Env = ownEnvironment(os.Environ())
	return cmd
}

func ownEnvironment(list []string) []string {
	// What people set for themselves.
	kept := []string{"GIT_AUTHOR_", "GIT_COMMITTER_", "GIT_CONFIG_GLOBAL=", "GIT_CONFIG_SYSTEM=", "GIT_CONFIG_NOSYSTEM=", "GIT_CONFIG_COUNT=", "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_", "GIT_SSH", "GIT_SSL_", "GIT_ASKPASS=", "GIT_HTTP_", "GIT_PROXY_"}
	list = slices.DeleteFunc(slices.Clone(list), func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		return slices.Contains([]string{"LANGUAGE", "LC_ALL", "LC_MESSAGES"}, name) ||
			strings.HasPrefix(s, "GIT_") && !slices.ContainsFunc(kept, func(k string) bool { return strings.HasPrefix(s, k) })
	})
	return append(list, "LC_ALL=C.UTF-8", "GIT_TERMINAL_PROMPT=0")
}
