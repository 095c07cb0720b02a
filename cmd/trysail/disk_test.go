package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trysail/release"
)

// onSmallDisk gives a host a disk of its own, of some megabytes.
func (w *world) onSmallDisk(host string, megabytes int) {
	w.t.Helper()
	dir := filepath.Join(w.dir, host)
	w.sh(fmt.Sprintf("mkdir -p %[1]s && mount -t tmpfs -o size=%[2]dm,mode=755 trysail-test %[1]s", dir, megabytes))
	w.t.Cleanup(func() { w.sh("! mountpoint -q " + dir + " || umount -l " + dir) }) // after its process has ended
}

// fill leaves so many megabytes on a host's disk, and gives the way back.
func (w *world) fill(host string, leave int64) (mend func()) {
	w.t.Helper()
	dir := filepath.Join(w.dir, host)
	file := filepath.Join(dir, "ballast")
	f, err := os.Create(file)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	for tries := 10; ; tries-- { // the host writes too
		var s unix.Statfs_t
		err := unix.Statfs(dir, &s)
		if err == nil {
			err = unix.Fallocate(int(f.Fd()), 0, 0, int64(s.Bavail)*s.Bsize-leave<<20)
		}
		if err == nil {
			break
		}
		if tries == 0 || !errors.Is(err, unix.ENOSPC) {
			w.t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(file); err != nil {
			w.t.Error(err)
		}
	}
}

// Survival 8: the disk of a machine is full. Its step moves, with the reason, and
// no person is asked; the copy of the ledger there goes on when there is room.
func TestFleetAgentDiskFull(t *testing.T) {
	w := plainWorld(t)
	w.onSmallDisk("a", 64)
	w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.agent("c", 13, "--plain", "--rank", "spare")
	mend := w.fill("a", 0)
	w.begin()
	w.until("gold begins on b", func() bool { return w.item("gold").Machine == "b" })
	events := w.events()
	lost := 0
	for _, e := range events {
		switch b := e.Body.(type) {
		case release.Lost:
			lost++
			if b.Machine != "a" || !strings.Contains(b.Why, "no space left") && !strings.Contains(b.Why, "is full") {
				t.Errorf("lost: %+v", b)
			}
		case release.Finished:
			if b.Exit != 0 {
				t.Errorf("a full disk is taken for a failure: %+v", b)
			}
		}
	}
	if lost == 0 || lost > 2 {
		t.Errorf("%d leases were lost with a full disk", lost)
	}
	mend()
	w.finish()
	want := w.trysail("release", "events", "4.2")
	w.until("a has the ledger", func() bool {
		got, err := os.ReadFile(filepath.Join(w.dir, "a/agent/ledger/release.4.2.jsonl"))
		return err == nil && string(got) == want
	})
}

// Survival 8: control's disk fills. Before the ledger's room is touched, control
// takes nothing large and says so; it goes on by itself when there is room. Then
// it is filled to the last byte: nothing that was acknowledged is lost.
func TestFleetControlDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "marks"), 0o755); err != nil {
		t.Fatal(err)
	}
	w := prepareWorld(t, plainRelease(dir))
	w.onSmallDisk("control", 600)
	w.startControl()
	if err := os.Symlink(filepath.Join(dir, "marks"), filepath.Join(w.dir, "marks")); err != nil {
		t.Fatal(err)
	}
	w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.begin()
	w.until("gold begins on a", func() bool { return w.item("gold").Machine == "a" && len(w.began()) == 1 })

	mend := w.fill("control", 100)
	if out, err := w.run("release", "start", "5.0", "--yes", "--ship", "2036-12-01T09:00:00Z"); err == nil || !strings.Contains(err.Error(), "are kept for the ledger") || !strings.Contains(err.Error(), "make room") {
		t.Errorf("a release is begun on a full disk: %s %v", out, err)
	}
	w.letGo() // gold is made, and control cannot take it
	w.until("the status says so", func() bool { return strings.Contains(w.trysail("release", "status", "4.2"), "are kept for the ledger") })
	time.Sleep(2 * time.Second)
	if x := w.item("gold"); x.Status != release.InProgress || x.Machine != "a" || x.Moves != 0 {
		t.Errorf("gold on a full disk: %+v", x)
	}
	mend()
	w.until("gold is confirmed", func() bool { return w.item("gold").Status == release.Complete })

	mend = w.fill("control", 0)
	before := w.trysail("release", "events", "4.2")
	acked := 0
	for i := range 20 {
		if _, err := w.run("release", []string{"hold", "resume"}[i%2], "4.2", "--reason", strings.Repeat("x", 100_000)); err == nil {
			acked++
		}
	}
	mend()
	c := w.hosts["control"]
	if _, err := w.run("fleet"); err != nil {
		c.kill()
		if !strings.Contains(w.logOf("control"), "the ledger cannot be written") {
			t.Errorf("control has ended, and did not say why:\n%s", w.logOf("control"))
		}
		c.start(c.args...)
		w.until("control answers", func() bool { _, err := w.run("fleet"); return err == nil })
	}
	after := w.trysail("release", "events", "4.2")
	if !strings.HasPrefix(after, before) || strings.Count(after, "\n") < strings.Count(before, "\n")+acked {
		t.Errorf("%d events were acknowledged on a full disk, and the ledger went from %d to %d", acked, strings.Count(before, "\n"), strings.Count(after, "\n"))
	}
	if w.status().Phase == release.Holding {
		w.trysail("release", "resume", "4.2")
	}
	w.finish()
}

// Survival 9: a machine comes and goes a hundred times. Its steps move a few times
// at most, and the release ends without anybody's help.
func TestFleetFlaps(t *testing.T) {
	w := nemesisWorld(t)
	a := w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	w.agent("c", 13, "--plain", "--rank", "spare")
	w.write("app/version.txt", "1.0\n")
	w.write("app/RELEASE.md", strings.Replace(nemesisRelease(filepath.Dir(w.marks())), "sleep 1\nmkdir -p obj", "sleep 15\nmkdir -p obj", 1))
	w.sh("cd " + w.app + " && git add -A && git -c user.name=t -c user.email=t@example.org commit -qm 1.0")
	s := &seen{acks: map[string][]release.Ack{}}
	w.word(s, "control", "1.0", release.Ack{Type: "started"}, "release", "start", "1.0", "--yes", "--ship", "2036-12-01T09:00:00Z")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		w.people(s, "1.0", []string{"control"}, stop)
	}()
	link := "ip -n " + w.tag + "-" + a.name + " link set eth0 "
	dice := rand.New(rand.NewPCG(9, 9))
	for range 100 {
		w.sh(link + "down")
		time.Sleep(time.Duration(50+dice.IntN(700)) * time.Millisecond)
		w.sh(link + "up")
		time.Sleep(time.Duration(50+dice.IntN(300)) * time.Millisecond)
	}
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		close(stop)
		<-done
		t.Fatalf("the release does not end:\n%s", w.trysail("release", "status", "1.0"))
	}
	moves := map[string]int{}
	for _, e := range w.eventsOf("1.0") {
		if b, ok := e.Body.(release.Lost); ok {
			moves[b.Item]++
		}
	}
	for item, n := range moves {
		if n > 4 {
			t.Errorf("%s moved %d times", item, n)
		}
	}
	t.Logf("moves: %v", moves)
	for _, wrong := range release.Check(w.eventsOf("1.0"), w.history(s, "1.0")) {
		t.Error(wrong)
	}
}
