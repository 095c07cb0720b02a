package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"trysail/internal/api"
)

const (
	logRate  = 50 << 20        // bytes a second
	logBytes = 9 * logRate / 2 // of one step: less than the limit of a log
)

// producer writes numbered lines at logRate, as a build that says a lot does: by
// the pages that its C library keeps. One that was held up hurries afterwards.
func producer(w io.Writer, n int64) error {
	out := bufio.NewWriterSize(w, 4096)
	begin := time.Now()
	for i, done := 0, int64(0); done < n; i++ {
		if i%512 == 0 {
			due := time.Duration(float64(done) / logRate * float64(time.Second))
			time.Sleep(due - time.Since(begin))
		}
		k, err := fmt.Fprintf(out, "%010d a line of a build that compiles one file after the other and names each of them\n", i)
		if err != nil {
			return err
		}
		done += int64(k)
	}
	return out.Flush()
}

// logging compares a step that writes a log at 50 MB/s with the same program that
// writes into a file on the same disk, in turns. What control has in the end must
// be what was written.
func (b *bench) logging(ctx context.Context) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	script := fmt.Sprintf("%s -produce %d", self, int64(logBytes))
	app := filepath.Join(b.work, "app")
	book := "---\nroles:\n  host: {plain: true}\npeople:\n  ann: {}\napprovers: [ann]\n---\n## Make\n\n```sh {\"name\":\"build\",\"timeout\":\"1h\"}\n" + script + "\n```\n\n```sh {\"name\":\"gold\",\"needs\":\"build\",\"timeout\":\"1m\",\"out\":\"app\",\"gold\":\"true\"}\necho app > app\n```\n"
	if err := b.sh(ctx, b.work, []string{"DIR=" + app, "BOOK=" + book}, working); err != nil {
		return err
	}
	c, err := b.control(ctx)
	if err != nil {
		return err
	}
	defer c.kill(syscall.SIGTERM)
	p, err := b.join(ctx, "a")
	if err != nil {
		return err
	}
	defer p.kill(syscall.SIGTERM)
	if err := wait(ctx, func() bool { return b.up(ctx) == 1 }); err != nil {
		return err
	}
	var ratios []float64
	for i := range b.pairs {
		file, err := b.time(ctx, nil, script+" > lines")
		if err != nil {
			return err
		}
		if err := b.sh(ctx, b.work, nil, "sync"); err != nil {
			return err
		}
		step, lag, err := b.logged(ctx, app, "1."+strconv.Itoa(i))
		if err != nil {
			return err
		}
		ratios = append(ratios, step/file)
		say("pair %d of %d: into a file %.3f s, as a step %.3f s; its release went on %.1f s later", i+1, b.pairs, file, step, lag)
	}
	b.add("a step that logs at 50 MB/s", median(ratios), "the same program, writing into a file", 1.05)
	return nil
}

// logged runs the step of a release to its end. It gives for how long the step
// ran, and how long after that its result was there.
func (b *bench) logged(ctx context.Context, app, version string) (ran, lag float64, err error) {
	if _, err := b.cli(ctx, app, "release", "start", version, "--yes", "--ship", "2036-12-01T09:00:00Z"); err != nil {
		return 0, 0, err
	}
	var x api.ItemStatus
	if err := wait(ctx, func() bool {
		var s api.Status
		out, serr := b.cli(ctx, b.work, "release", "status", version, "--json")
		if serr == nil {
			serr = json.Unmarshal([]byte(out), &s)
		}
		if serr != nil || len(s.Items) == 0 {
			return false
		}
		if s.Items[0].Since != nil {
			lag = time.Since(*s.Items[0].Since).Seconds()
		}
		x = s.Items[0]
		return x.Log != ""
	}); err != nil {
		return 0, 0, err
	}
	// What was streamed, while the step ran, and what was kept of it.
	streamed := filepath.Join(b.work, "control/control/logs", version, fmt.Sprintf("build.%d.log", x.Epoch))
	kept := filepath.Join(b.work, "control/depot/blobs/sha256", x.Log[len("sha256:"):])
	if err := b.sh(ctx, b.work, nil, "cmp lines "+streamed+"; cmp lines "+kept); err != nil {
		return 0, 0, errors.Join(errors.New("control's log is not what the step wrote"), err)
	}
	return x.Took, lag - x.Took, nil
}
