package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"trysail/internal/api"
	"trysail/internal/machine"
	"trysail/internal/memorytest"
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

// repeated gives a text again and again.
type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		c := copy(p[n:], r.text[r.at:])
		n, r.at = n+c, (r.at+c)%len(r.text)
	}
	return n, nil
}

// A step writes results whose elements are in one another without end, or have attributes
// without end. Of one file that it may write the agent needs more memory than many a machine has.
func TestAttackResultsTakeMemory(t *testing.T) {
	for name, text := range map[string]io.Reader{
		"elements":   &repeated{text: "<a>"},
		"name space": &repeated{text: "<a xmlns='b'>"},
		"attributes": io.MultiReader(strings.NewReader("<a>text<a"), &repeated{text: " a=''"}),
		"quotes":     io.MultiReader(strings.NewReader(`<?xml version="1.0"?><!-- ' --><a`), &repeated{text: ` a='"' b="'" c='>'`}),
	} {
		var err error
		if most := memorytest.InUse(func() { _, _, err = junit(io.LimitReader(text, maxResults)) }); most > 200<<20 || err == nil {
			t.Errorf("%s: %d MB of memory (%v)", name, most>>20, err)
		}
	}
	whole := `<?xml version="1.0"?><!-- it's --><s><testcase name="a"><system-out>` + strings.Repeat(`x="1" `, 1000) + `<![CDATA[<a ` + strings.Repeat(`x="1" `, 1000) + `]]></system-out></testcase></s>`
	if tests, _, err := junit(strings.NewReader(whole)); err != nil || tests != 1 {
		t.Errorf("%d tests (%v)", tests, err)
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
