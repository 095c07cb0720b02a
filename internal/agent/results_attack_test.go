package agent

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"trysail/internal/api"
	"trysail/internal/machine"
)

// A step leaves a FIFO, or a link to one, where its test results are expected:
// who opens it waits for a writer for ever.
func TestAttackResultsAreAFIFO(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/fifo", 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("fifo", dir+"/junit.xml"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(".", dir+"/reports"); err != nil {
		t.Fatal(err)
	}
	for _, glob := range []string{"fifo", "junit.xml", "reports/*.xml", "*"} {
		done := make(chan error)
		go func() {
			_, _, err := results{}.read(dir, []string{glob}, time.Time{})
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "FIFO") && !strings.Contains(err.Error(), "link") {
				t.Errorf("%s: %v", glob, err)
			}
		case <-time.After(3 * time.Second):
			t.Errorf("reading %s blocks", glob)
		}
	}
}

// A step claims that half a million tests failed, each with a name of its own; the
// step's timeout does not end the agent's reading of that.
func TestAttackResultsNameTestsWithoutEnd(t *testing.T) {
	dir := t.TempDir()
	var text strings.Builder
	text.WriteString("<testsuite>")
	for i := range 500_000 {
		fmt.Fprintf(&text, `<testcase name="%d"><failure/></testcase>`, i)
	}
	text.WriteString("</testsuite>")
	if err := os.WriteFile(dir+"/many.xml", []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	long := `<testsuite><testcase name="` + strings.Repeat("x", 30<<20) + `"><failure/></testcase></testsuite>`
	if err := os.WriteFile(dir+"/long.xml", []byte(long), 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := results{}.read(dir, []string{"many.xml"}, time.Time{})
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "tests failed") {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the agent reads for longer than 20 s")
	}
	_, failing, err := results{}.read(dir, []string{"long.xml"}, time.Time{})
	if err != nil || len(failing) != 1 || len(failing[0]) > 1000 {
		t.Errorf("%d names, the first of %d bytes (%v)", len(failing), len(failing[0]), err)
	}
}

// Whoever rules control sends a step without a server to a machine that never joined
// with --plain: it would run there as root.
func TestAttackControlSendsAPlainStep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a plain step runs as root")
	}
	a := joinedTo(t, newFreezing(t, nil))
	st, err := machine.OpenState(t.Context(), t.TempDir()+"/state", t.TempDir()+"/run", a.o.Log)
	if err != nil {
		t.Fatal(err)
	}
	a.o.State = st
	zw, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	source := string(zw.EncodeAll(make([]byte, 1024), nil)) // a tar file of nothing
	dg, _, err := a.o.Depot.Put(t.Context(), strings.NewReader(source))
	if err != nil {
		t.Fatal(err)
	}
	for _, plain := range []bool{true, false} {
		a.o.Plain = plain
		n, err := st.Begin()
		if err != nil {
			t.Fatal(err)
		}
		var as api.Assignment
		mark := t.TempDir() + "/root"
		as.Step.Name, as.Step.Language, as.Source.Original = "evil", "sh", dg
		as.Step.Script = "id -u >" + mark
		log, err := a.newLog(as.Holding, n.Path("log"), maskOf(nil))
		if err != nil {
			t.Fatal(err)
		}
		_, err = (&step{a: a, as: as, n: n, log: log, mask: maskOf(nil)}).once(t.Context())
		var refused *PlainError
		if plain && err != nil || !plain && !errors.As(err, &refused) {
			t.Errorf("plain %v: %v", plain, err)
		}
		if _, err := os.Stat(mark); (err == nil) != plain {
			t.Errorf("plain %v: the step ran as root: %v", plain, err == nil)
		}
		if err := errors.Join(log.file.Close(), n.Close()); err != nil {
			t.Error(err)
		}
	}
}
