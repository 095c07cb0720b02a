package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"trysail/release"
)

// probing is a release whose steps try to reach what a step must not.
func probing(steps ...string) string {
	book := "---\nroles:\n  build: {blueprint: trysail}\npeople:\n  ann: {}\napprovers: [ann]\n---\n# Release\n\n## Build\n\n"
	for _, more := range steps {
		book += "```bash {" + more + `,"timeout":"2m"}` + "\n" + `
probe() {
	exec 3<> /dev/tcp/$1/$2 || return 0
	printf 'GET / HTTP/1.0\r\n\r\n' >&3 || true
	got=$(timeout 3 head -c 500 <&3 | tr -d '\000')
	exec 3>&-
	case "$got" in
	"" | *"no recorded answer"*) ;;
	*) echo "reached $1:$2" ;;
	esac
}
trap '' PIPE
for at in 10.213.77.1:7440 10.213.77.1:7441 127.0.0.1:9000 10.213.77.11:9000 10.213.77.20:9000 0.0.0.0:9000; do
	probe ${at%:*} ${at#*:} 2> /dev/null || true
done
` + "```\n\n"
	}
	return book + "## Gold master\n\n```sh {\"name\":\"gold\",\"needs\":\"closed\",\"timeout\":\"5m\",\"out\":\"dist/app\",\"gold\":\"true\"}\n./release.sh\n```\n"
}

// TestAttackStepNetwork is a step in a rebuilt server that connects to control, to the
// ledger's port, and to services of its machine, on the loopback and its own address.
func TestAttackStepNetwork(t *testing.T) {
	t.Parallel()
	steps := []string{`"name":"closed"`, `"name":"others","network":"true"`, `"name":"open","network":"host"`}
	w := prepareWorld(t, probing(steps...))
	w.write("app/release.sh", "#!/bin/bash\nset -e\nmkdir -p dist\ncat app.txt | head -c 100 > dist/app\ntr -d a < dist/app | head -c 1\ntimeout 5 true\n")
	if err := os.Chmod(filepath.Join(w.app, "release.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.sh("cd " + w.app + "; git add -A; git -c user.name=t -c user.email=t@example.org commit -qm build")
	cmd := exec.Command(w.bin, "--state", filepath.Join(w.dir, "control"), "capture", "--yes", "--output", "dist/*", "--", "./release.sh")
	cmd.Dir = w.app
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("capture: %v\n%s", err, out)
	}
	w.sh("cd " + w.app + "; git add -A; git -c user.name=t -c user.email=t@example.org commit -qm captured")
	w.startControl()
	answer := func(l net.Listener) {
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte("welcome\n")) // the client may be gone
				c.Close()
			}
		}()
	}
	a := w.agent("a", 11)
	for _, at := range []string{"127.0.0.1:9000", "10.213.77.11:9000"} {
		answer(a.listen(at))
	}
	answer(w.host("other", 20).listen("10.213.77.20:9000"))
	w.begin()
	// The ledger's port says nothing to strangers, so a step that may reach it sees nothing.
	all := []string{"10.213.77.1:7440", "127.0.0.1:9000", "10.213.77.11:9000", "10.213.77.20:9000", "0.0.0.0:9000"}
	for step, want := range map[string][]string{"closed": nil, "others": {"10.213.77.20:9000"}, "open": all} {
		w.until(step+" has ended", func() bool {
			s := w.item(step).Status
			return s == release.Complete || s == release.Stopped
		})
		log := w.trysail("release", "log", "4.2", step)
		var reached []string
		for line := range strings.Lines(log) {
			if at, ok := strings.CutPrefix(line, "reached "); ok {
				reached = append(reached, strings.TrimSpace(at))
			}
		}
		if s := w.item(step); !slices.Equal(reached, want) || s.Status != release.Complete {
			t.Errorf("step %s (%s) reached %v, not %v:\n%s", step, s.Status, reached, want, log)
		}
	}
	for _, why := range []string{"10.213.77.1: control is there", "10.213.77.11: it is an address of this machine"} {
		if log := w.trysail("release", "log", "4.2", "others"); !strings.Contains(log, why) {
			t.Errorf("the log does not say %q:\n%s", why, log)
		}
	}
}
