package drill

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	tab "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"trysail/runbook"
)

// axe is the accessibility checker that the pages are held against. It is fetched
// for the test and never part of what is shipped.
const (
	axePackage = "axe-core@4.14.1"
	axeSum     = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
)

// programs that a test needs: where everything must run, their lack is a failure.
func programs(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			if os.Getenv("TRYSAIL_TESTS") == "all" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

func fetchAxe(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("npm", "pack", "--silent", "--ignore-scripts", axePackage)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("npm pack: %v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, strings.Replace(axePackage, "@", "-", 1)+".tgz"))
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != axeSum {
		t.Fatalf("%s has the digest %x", axePackage, sum)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("axe.min.js: %v", err)
		}
		if h.Name == "package/axe.min.js" {
			text, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
	}
}

// browser is a Chromium of its own, and what it complained of.
type browser struct {
	ctx  context.Context
	dir  string
	mu   sync.Mutex
	said []string // errors, and requests of anything but the page
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath("chromium"), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.UserDataDir(t.TempDir()),
	}
	limited, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(stop)
	alloc, end := chromedp.NewExecAllocator(limited, options...)
	ctx, close := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close()
		end()
	})
	b := &browser{ctx: ctx, dir: t.TempDir()}
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	if err == nil {
		_, err = chromedp.Call(ctx, log.Enable, cdp.Empty{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hear keeps what the browser complains of.
func (b *browser) hear(e any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := e.(type) {
	case *log.EventEntryAdded:
		b.said = append(b.said, "log: "+e.Entry.Text)
	case *runtime.EventExceptionThrown:
		b.said = append(b.said, "exception: "+e.ExceptionDetails.Text)
	case *tab.EventJavascriptDialogOpening:
		b.said = append(b.said, "dialog: "+e.Message)
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, "file://"+b.dir) {
			b.said = append(b.said, "request: "+e.Request.URL)
		}
	}
}

// open shows a page at a width, in a scheme of colours.
func (b *browser) open(text string, width int64, scheme string) error {
	file := filepath.Join(b.dir, "report.html")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	if _, err := chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 1000, DeviceScaleFactor: 1}); err != nil {
		return err
	}
	if err := b.media("screen", scheme); err != nil {
		return err
	}
	return chromedp.Do(b.ctx, chromedp.Navigate("file://"+file))
}

// media makes the page be shown on a screen or on paper.
func (b *browser) media(media, scheme string) error {
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Media: media, Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	return err
}

// ask runs an expression in the page.
func (b *browser) ask(expression string, answer any) error {
	data, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]byte](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, answer)
}

// complaints gives what the browser said since the last time.
func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.said
	b.said = nil
	return list
}

// axe gives what the checker finds wrong.
func (b *browser) axe(source string) ([]string, error) {
	var here bool
	if err := b.ask(source+"; true", &here); err != nil {
		return nil, err
	}
	var found []struct {
		ID, Help string
		Nodes    []struct{ HTML, FailureSummary string }
	}
	if err := b.ask("axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)", &found); err != nil {
		return nil, err
	}
	var list []string
	for _, f := range found {
		for _, n := range f.Nodes {
			list = append(list, fmt.Sprintf("%s: %s\n%s\n%s", f.ID, f.Help, n.HTML, n.FailureSummary))
		}
	}
	return list, nil
}

// seen is the picture as a person sees it: what is drawn, and where.
type seen struct {
	Width, Height float64
	Faults        []seenFault
	Machines      []string
	Texts         []box
	Ticks         []box
}

type box struct {
	Text       string
	X, Y, W, H float64
}

type seenFault struct {
	Name, Head string
	Marks      []box // Text is the kind; what is not painted is left out
	Tracks     []seenTrack
}

type seenTrack struct {
	Kind, Say string
	Bar       *box
	Limit     *box
}

const lookAtPicture = `(() => {
  const svg = document.querySelector('#timeline');
  if (!svg) return {};
  const at = svg.getBoundingClientRect();
  const painted = e => { const s = getComputedStyle(e); return e.checkVisibility({opacityProperty: true, visibilityProperty: true}) && (s.fill !== 'none' || s.stroke !== 'none'); };
  const box = (e, text) => { const r = e.getBoundingClientRect(); return {Text: text, X: r.x - at.x, Y: r.y - at.y, W: r.width, H: r.height}; };
  const one = (g, q) => { const e = g.querySelector(q); return e && painted(e) ? box(e, '') : null; };
  const kind = e => [...e.classList].filter(c => !['mark', 'over'].includes(c)).join(' ');
  return {
    Width: at.width, Height: at.height,
    Faults: [...svg.querySelectorAll('.fault')].map(g => ({
      Name: g.dataset.fault, Head: g.querySelector('.head')?.textContent ?? '',
      Marks: [...g.querySelectorAll('.mark')].filter(painted).map(m => box(m, kind(m))),
      Tracks: [...g.querySelectorAll('.track')].map(t => ({Kind: t.dataset.kind, Say: t.querySelector('.say')?.textContent ?? '', Bar: one(t, '.bar'), Limit: one(t, '.limit')})),
    })),
    Machines: [...svg.querySelectorAll('.lane')].map(l => l.dataset.machine),
    Texts: [...svg.querySelectorAll('text')].filter(painted).map(t => box(t, t.textContent)),
    Ticks: [...svg.querySelectorAll('.axis text')].map(t => box(t, t.textContent)),
  };
})()`

// lacking says what a picture does not show, or shows in a wrong place, of a report.
func lacking(r *Report, s *seen) []string {
	var list []string
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if len(s.Ticks) < 3 {
		return []string{"there is no scale"}
	}
	a, z := s.Ticks[0], s.Ticks[len(s.Ticks)-1]
	last, err := time.ParseDuration(strings.NewReplacer(" min", "m", " ", "").Replace(z.Text))
	if err != nil || a.Text != "0 s" {
		return []string{fmt.Sprintf("the scale goes from %q to %q", a.Text, z.Text)}
	}
	middle := func(b box) float64 { return b.X + b.W/2 }
	perSecond := (middle(z) - middle(a)) / last.Seconds()
	near := func(what string, x, seconds float64) {
		if want := middle(a) + perSecond*seconds; math.Abs(x-want) > 2.5 {
			say("%s stands at %.0f, and %.1f s are at %.0f", what, x, seconds, want)
		}
	}
	if len(s.Faults) != len(r.Verdict.Faults) {
		return append(list, fmt.Sprintf("it has %d rows, and %d faults were injected", len(s.Faults), len(r.Verdict.Faults)))
	}
	for i, b := range r.Verdict.Faults {
		f := s.Faults[i]
		if f.Name != b.Name || !strings.Contains(f.Head, b.Name) || !strings.Contains(f.Head, string(b.Fault)) {
			say("row %d is of %q, headed %q", i, f.Name, f.Head)
		}
		mark := func(kind string, n int) *box {
			for k := range f.Marks {
				if f.Marks[k].Text == kind {
					if n--; n < 0 {
						return &f.Marks[k]
					}
				}
			}
			say("%s has no mark %s", b.Name, kind)
			return nil
		}
		if m := mark("injected", 0); m != nil {
			near(b.Name+" injected", middle(*m), b.At.Seconds())
		}
		count := map[string]int{}
		for _, want := range follows(r.Plan, r.History, r.Verdict, b) {
			n := count[want.Kind]
			count[want.Kind]++
			var tracks []seenTrack
			for _, t := range f.Tracks {
				if t.Kind == want.Kind {
					tracks = append(tracks, t)
				}
			}
			what := b.Name + " " + want.Kind
			if len(tracks) <= n || tracks[n].Bar == nil {
				say("%s has no bar", what)
				continue
			}
			t := tracks[n]
			near(what+": its bar", t.Bar.X, want.From)
			if want.Seconds > 0 {
				if m := mark(want.Kind, n); m != nil {
					near(what, middle(*m), want.From+want.Seconds)
				}
				near(what+": the end of its bar", t.Bar.X+t.Bar.W, want.From+want.Seconds)
				if !strings.Contains(t.Say, runbook.FormatSeconds(want.Seconds)) {
					say("%s says %q", what, t.Say)
				}
			} else if !strings.Contains(t.Say, "never") {
				say("%s says %q, and it never came", what, t.Say)
			}
			if want.Limit > 0 {
				switch {
				case t.Limit == nil:
					say("%s has no limit", what)
				case want.From+want.Limit > shown(r.Plan, r.History, r.Verdict):
					if t.Limit.X < middle(z) || !strings.Contains(t.Say, " of "+runbook.FormatSeconds(want.Limit)) {
						say("%s says %q, and no arrow points to its limit", what, t.Say)
					}
				default:
					near(what+": its limit", middle(*t.Limit), want.From+want.Limit)
				}
			}
		}
	}
	for _, h := range r.Plan.World.Hosts {
		if !slices.Contains(s.Machines, h.Name) {
			say("no lane is of %s", h.Name)
		}
	}
	for i, x := range s.Texts {
		if x.X < -1 || x.Y < -1 || x.X+x.W > s.Width+1 || x.Y+x.H > s.Height+1 {
			say("%q is outside the picture", x.Text)
		}
		for _, y := range s.Texts[i+1:] {
			if x.X < y.X+y.W-1 && y.X < x.X+x.W-1 && x.Y < y.Y+y.H-3 && y.Y < x.Y+x.H-3 {
				say("%q and %q lie over each other", x.Text, y.Text)
			}
		}
	}
	return list
}

func (b *browser) picture(t *testing.T, r *Report) []string {
	t.Helper()
	var s seen
	if err := b.ask(lookAtPicture, &s); err != nil {
		t.Fatal(err)
	}
	return lacking(r, &s)
}

func TestPageInABrowser(t *testing.T) {
	programs(t, "chromium", "npm")
	axe := fetchAxe(t)
	b := newBrowser(t)
	reports := odd(t)
	reports["told"], reports["hard"] = told(t), hard(t)
	for name, r := range reports {
		text := page1(t, r)
		schemes := []string{"light"}
		if name == "hard" {
			schemes = append(schemes, "dark")
		}
		for _, scheme := range schemes {
			if err := b.open(text, 1200, scheme); err != nil {
				t.Fatal(err)
			}
			// First: the checker brings a script of its own.
			var state struct{ Scripts, Title, Background, Mono string }
			if err := b.ask(`({Scripts: String(document.scripts.length), Title: document.title, Background: getComputedStyle(document.body).backgroundColor})`, &state); err != nil {
				t.Fatal(err)
			}
			if state.Scripts != "0" || !strings.HasPrefix(state.Title, r.Plan.Name+": "+string(r.Verdict.Value)) {
				t.Errorf("%s: %+v", name, state)
			}
			if dark := state.Background == "rgb(20, 23, 28)"; dark != (scheme == "dark") {
				t.Errorf("%s, %s: the page is %s", name, scheme, state.Background)
			}
			for _, x := range b.picture(t, r) {
				t.Errorf("%s: the picture: %s", name, x)
			}
			if list := b.complaints(); len(list) > 0 {
				t.Errorf("%s: the browser says %q", name, list)
			}
			list, err := b.axe(axe)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range list {
				t.Errorf("%s, %s: axe: %s", name, scheme, x)
			}
			b.complaints()
		}
	}
	fits(t, b, reports["hard"])
	printed(t, b, reports["hard"])
}

// fits: nothing is cut off on a telephone.
func fits(t *testing.T, b *browser, r *Report) {
	if err := b.open(page1(t, r), 390, "light"); err != nil {
		t.Fatal(err)
	}
	var wide []string
	if err := b.ask(`[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide') && e.getBoundingClientRect().right > 391).map(e => e.tagName + ' ' + e.textContent.slice(0, 60))`, &wide); err != nil {
		t.Fatal(err)
	}
	if len(wide) > 0 {
		t.Errorf("too wide for a telephone: %q", wide)
	}
}

// printed: on A4 nothing is cut off, on light paper, in colours that are printed.
func printed(t *testing.T, b *browser, r *Report) {
	if err := b.open(page1(t, r), 703, "dark"); err != nil { // 210 mm without margins
		t.Fatal(err)
	}
	if err := b.media("print", "dark"); err != nil {
		t.Fatal(err)
	}
	var wide []string
	if err := b.ask(`[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > 704).map(e => e.tagName + ' ' + e.textContent.slice(0, 60))`, &wide); err != nil {
		t.Fatal(err)
	}
	var background string
	if err := b.ask(`getComputedStyle(document.body).backgroundColor`, &background); err != nil {
		t.Fatal(err)
	}
	pdf, err := chromedp.Run(b.ctx, chromedp.PrintToPDF())
	if err != nil {
		t.Fatal(err)
	}
	if len(wide) > 0 {
		t.Errorf("too wide for paper: %q", wide)
	}
	if background != "rgb(255, 255, 255)" {
		t.Errorf("the paper is %s", background)
	}
	pages := len(regexp.MustCompile(`/Type\s*/Page\b`).FindAll(pdf, -1))
	if !bytes.HasPrefix(pdf, []byte("%PDF-")) || pages < 2 || pages > 12 {
		t.Errorf("%d printed pages", pages)
	}
}

// Whoever judges the picture must see that a part of it is not there.
func TestPictureThatLacksAPart(t *testing.T) {
	programs(t, "chromium")
	b := newBrowser(t)
	r := hard(t)
	good := page1(t, r)
	for _, x := range []struct{ name, find, with string }{
		{"the picture", `(?s)<svg id="timeline".*?</svg>`, ""},
		{"a row", `(?s)<g class="fault" data-fault="backup-dies">.*?</g>\s*</g>`, "</g>"},
		{"where it was injected", `<polygon class="mark injected" points="[^"]*" data-seconds[^>]*>`, ""},
		{"noticed", `<circle class="mark noticed[^>]*>`, ""},
		{"moved", `<polygon class="mark moved[^>]*>`, ""},
		{"rebuilt", `<polygon class="mark rebuilt[^>]*>`, ""},
		{"a bar", `<rect class="bar over"[^>]*>`, ""},
		{"a bar that is never painted", `<rect class="bar over" `, `<rect class="bar over" visibility="hidden" `},
		{"a limit", `<line class="limit" [^>]*data-seconds="8"/>`, ""},
		{"a limit in its place", `(<line class="limit" x1=")[^"]*(" x2=")[^"]*(" [^>]*data-seconds="8"/>)`, "${1}500${2}500${3}"},
		{"a mark in its place", `<circle class="mark noticed over" cx="[^"]*"`, `<circle class="mark noticed over" cx="600"`},
		{"the scale", `(?s)<g class="axis">.*?</g>`, ""},
		{"a machine", `(?s)<g class="lane" data-machine="spare">.*?</g>\n<g class="lane"`, `<g class="lane"`},
		{"words in a place of their own", `(<text class="say[^"]*" x="8" y=")[^"]*"`, `${1}100"`},
		{"a limit further right", `<polygon class="limit"[^>]*>`, ""},
		{"what never came", `rebuilt spare never`, `rebuilt spare`},
	} {
		bad := regexp.MustCompile(x.find).ReplaceAllString(good, x.with)
		if bad == good {
			t.Errorf("%s: nothing was planted", x.name)
			continue
		}
		if err := b.open(bad, 1200, "light"); err != nil {
			t.Fatal(err)
		}
		var s seen
		if err := b.ask(lookAtPicture, &s); err != nil {
			t.Fatal(err)
		}
		found := lacking(r, &s)
		if len(found) == 0 {
			t.Errorf("a picture without %s passes", x.name)
		} else if testing.Verbose() {
			said, _ := json.Marshal(found[0])
			t.Logf("without %s: %s", x.name, said)
		}
	}
}
