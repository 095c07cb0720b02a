package main

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trysail/internal/clock"
	"trysail/release"
)

// setClock sets the wall clock of control, and what has passed, for all machines.
func (w *world) setClock(s clock.Set) {
	w.t.Helper()
	if err := clock.Write(filepath.Join(w.dir, "clock"), s); err != nil {
		w.t.Fatal(err)
	}
}

// clocked makes a fleet whose clocks the test sets: control's by file, and the
// commands that are given to it by none.
func clocked(t *testing.T) *world {
	t.Parallel()
	dir := t.TempDir()
	text := plainRelease(dir)
	at := strings.Index(text, "## Gold master")
	text = text[:at] + "```yaml {\"name\":\"embargo\",\"kind\":\"wait\",\"needs\":\"compile\",\"until\":\"ship-2d\"}\nreason: embargo lifts\n```\n\n" +
		strings.Replace(text[at:], `"needs":"compile"`, `"needs":"embargo"`, 1)
	w := prepareWorld(t, text)
	for _, d := range []string{"marks", "control"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "marks"), filepath.Join(w.dir, "marks")); err != nil {
		t.Fatal(err)
	}
	w.write("control/"+clock.Marker, "")
	w.setClock(clock.Set{})
	c := w.host("control", 1)
	w.control = c.ip + ":7440"
	c.start("serve", "--listen", w.control, "--drill-clock", filepath.Join(w.dir, "clock"))
	w.until("control has written its link", func() bool {
		_, err := os.Stat(filepath.Join(w.dir, "control/control/link"))
		return err == nil
	})
	return w
}

// Survival 9, second half: the wall clock of control goes an hour forward and an
// hour back, while a step runs and while a release waits. No lease is lost, and
// the wait does not end early. When the time has really passed, it ends.
func TestFleetClockJumps(t *testing.T) {
	w := clocked(t)
	w.agent("a", 11, "--plain")
	w.agent("b", 12, "--plain", "--rank", "backup")
	ship := time.Now().Add(48*time.Hour + 30*time.Minute)
	w.trysail("release", "start", "4.2", "--yes", "--ship", ship.UTC().Format(time.RFC3339))
	w.until("the embargo is waited for", func() bool {
		return w.item("compile").Status == release.Complete && w.item("embargo").Status == release.Ready
	})
	still := func(what, item string, is release.Status, machine string) {
		t.Helper()
		for end := time.Now().Add(6 * time.Second); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
			if x := w.item(item); x.Status != is || x.Machine != machine {
				t.Fatalf("%s: %s is %s on %q", what, item, x.Status, x.Machine)
			}
		}
	}
	for _, skew := range []time.Duration{time.Hour, -time.Hour, 0} {
		w.setClock(clock.Set{Skew: skew})
		still("the wall clock is wrong by "+skew.String(), "embargo", release.Ready, "")
	}
	w.setClock(clock.Set{Jump: 29 * time.Minute})
	still("a minute is left", "embargo", release.Ready, "")
	w.setClock(clock.Set{Jump: 31 * time.Minute})
	w.until("gold begins on a", func() bool { return w.item("gold").Machine == "a" && len(w.began()) == 1 })
	for _, skew := range []time.Duration{time.Hour, -time.Hour, 0} {
		w.setClock(clock.Set{Jump: 31 * time.Minute, Skew: skew})
		still("the wall clock is wrong by "+skew.String(), "gold", release.InProgress, "a")
	}
	if n := len(w.began()); n != 1 {
		t.Errorf("gold began %d times", n)
	}
	w.finish()
}

// TestFleetCertificates: three hundred days pass, twice, and nobody is there who would
// join a machine again: control and machines have certified each other anew, and the
// release goes on.
func TestFleetCertificates(t *testing.T) {
	w := clocked(t)
	for i, name := range []string{"a", "b"} {
		w.write(name+"/"+clock.Marker, "")
		w.agent(name, 11+i, "--plain", "--drill-clock", filepath.Join(w.dir, "clock"))
	}
	until := func(name string) time.Time {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(w.dir, name, "agent/cert.pem"))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(data)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return cert.NotAfter
	}
	for days := 300; days <= 600; days += 300 {
		w.setClock(clock.Set{Jump: time.Duration(days) * 24 * time.Hour})
		for _, name := range []string{"a", "b"} {
			w.until(name+" is certified anew", func() bool {
				return until(name).After(time.Now().AddDate(0, 0, days+399))
			})
		}
	}
	// From here on each of them begins anew, with what it has on its disk.
	for _, name := range []string{"a", "b"} {
		w.hosts[name].kill()
		w.hosts[name].start("agent", "--drill-clock", filepath.Join(w.dir, "clock"))
	}
	ship := time.Now().AddDate(0, 0, 600).Add(47 * time.Hour)
	w.trysail("release", "start", "4.2", "--yes", "--ship", ship.UTC().Format(time.RFC3339))
	w.until("gold begins", func() bool { return len(w.began()) == 1 })
	w.finish()
}
