package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"trysail/runbook"
)

// ui tells what is being done. On a terminal the last line is redrawn with its
// progress; elsewhere each step is one line when it begins.
type ui struct {
	mu       sync.Mutex
	w        io.Writer
	terminal bool
	step     string
	begin    time.Time
	drawn    time.Time
}

func newUI(w io.Writer, terminal bool) *ui {
	return &ui{w: w, terminal: terminal && os.Getenv("TERM") != "dumb"}
}

// Step begins something that may take a while.
func (u *ui) Step(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.finish()
	u.step, u.begin = plainLine(text), time.Now()
	u.draw(u.step)
}

// Progress says how far the step is.
func (u *ui) Progress(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	often, last := 100*time.Millisecond, u.drawn
	if !u.terminal { // each is a line
		often = 30 * time.Second
		if last.Before(u.begin) {
			last = u.begin
		}
	}
	if u.step != "" && time.Since(last) > often {
		u.draw(u.step + "  " + plainLine(text))
		u.drawn = time.Now()
	}
}

func (u *ui) draw(text string) {
	if !u.terminal {
		fmt.Fprintln(u.w, "· "+text)
		return
	}
	width := widthOf(u.w) - len("· ")
	if utf8.RuneCountInString(text) > width {
		text = string([]rune(text)[:width-1]) + "…"
	}
	fmt.Fprint(u.w, "\r\x1b[K· "+text)
}

// widthOf is how many letters fit into a line of a terminal.
func widthOf(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 20 {
			return width
		}
	}
	return 80
}

// fold breaks lines at blanks so that they fit a width; what follows is indented two
// letters more. A command stays one line, so that it can be copied.
func fold(text string, width int) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		rest := strings.TrimRight(line, "\n")
		indent := rest[:len(rest)-len(strings.TrimLeft(rest, " "))] + "  "
		if strings.Contains(rest, "trysail ") || strings.HasPrefix(strings.TrimSpace(rest), "→") {
			indent = rest // it never fits
		}
		for utf8.RuneCountInString(rest) > width && len(indent) < width/2 {
			at := len(string([]rune(rest)[:width+1]))
			cut := strings.LastIndexByte(rest[:at], ' ')
			if cut <= len(indent) {
				break
			}
			b.WriteString(strings.TrimRight(rest[:cut], " ") + "\n")
			rest = indent + strings.TrimLeft(rest[cut:], " ")
		}
		b.WriteString(rest)
		if strings.HasSuffix(line, "\n") {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// finish leaves the line of a finished step with its duration.
func (u *ui) finish() {
	if u.step == "" {
		return
	}
	took := time.Since(u.begin)
	if u.terminal {
		fmt.Fprintf(u.w, "\r\x1b[K✓ %s  %s\n", u.step, runbook.FormatDuration(took))
	} else if took > 2*time.Second {
		fmt.Fprintf(u.w, "  %s\n", runbook.FormatDuration(took))
	}
	u.step = ""
}

func (u *ui) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.finish()
}

// Write lets log lines and a build's output pass between the redrawn lines.
func (u *ui) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.terminal && u.step != "" {
		fmt.Fprint(u.w, "\r\x1b[K")
	}
	return u.w.Write(p)
}

// size prints bytes for people.
func size(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	default:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
}

// tail keeps the last lines of a build's output, for the day it fails.
type tail struct {
	mu   sync.Mutex
	also io.Writer
	buf  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 1<<17 {
		t.buf = append([]byte(nil), t.buf[len(t.buf)-1<<16:]...)
	}
	t.mu.Unlock()
	if t.also != nil {
		return t.also.Write(p)
	}
	return len(p), nil
}

func (t *tail) last(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimRight(string(t.buf), "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
