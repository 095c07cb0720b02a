package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
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
	if u.terminal && u.step != "" && time.Since(u.drawn) > 100*time.Millisecond {
		u.draw(u.step + "  " + plainLine(text))
		u.drawn = time.Now()
	}
}

func (u *ui) draw(text string) {
	if !u.terminal {
		fmt.Fprintln(u.w, "· "+text)
		return
	}
	const width = 100
	if utf8.RuneCountInString(text) > width {
		text = string([]rune(text)[:width-1]) + "…"
	}
	fmt.Fprint(u.w, "\r\x1b[K· "+text)
}

// finish leaves the line of a finished step with its duration.
func (u *ui) finish() {
	if u.step == "" {
		return
	}
	took := time.Since(u.begin)
	if u.terminal {
		fmt.Fprintf(u.w, "\r\x1b[K✓ %s  %s\n", u.step, seconds(took.Seconds()))
	} else if took > 2*time.Second {
		fmt.Fprintf(u.w, "  %s\n", seconds(took.Seconds()))
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

// seconds prints a duration for people: 0.4s, 12.3s, 2m49s, 1h02m.
func seconds(s float64) string {
	switch {
	case s < 100:
		return fmt.Sprintf("%.1fs", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", int(s)/60, int(s)%60)
	default:
		return fmt.Sprintf("%dh%02dm", int(s)/3600, int(s)%3600/60)
	}
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
