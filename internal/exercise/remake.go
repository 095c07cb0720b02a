package exercise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"trysail/drill"
	"trysail/internal/api"
	"trysail/internal/lab"
	"trysail/release"
)

// Making is gold of the past that is to be made again.
type Making struct {
	Stage   func() (lab.Stage, error)
	Version string
	Disk    string // of the machine, as a scenario writes it
	// Start begins the release at control: the steps that gold needs, and gold.
	Start    func(ctx context.Context, c *api.Client) error
	Progress func(string)
	Log      *slog.Logger
}

// idle is how long a step may be ready and not run: its machine is there and idle.
const idle = 2 * time.Minute

// builder is the machine that makes it.
const builder = "builder"

// Remake makes control and one machine that has nothing, on a stage without any other
// network, lets them make gold, and gives it. Nothing of them is left.
func Remake(ctx context.Context, o Making) (gold []release.Artifact, err error) {
	stage, err := o.Stage()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	file, err := os.OpenFile(filepath.Join(stage.Scratch(), "history.jsonl"), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	p := &drill.Plan{}
	p.World = drill.World{Controls: 1, Hosts: []drill.Host{{Name: builder, Rank: "primary", Disk: o.Disk}}}
	r := &runner{o: Options{Progress: o.Progress, Log: o.Log}, p: p, stage: stage, begun: time.Now(), file: file, stop: func() {}, fleet: map[string]api.MachineStatus{}, since: map[string]time.Time{}, warm: map[string]bool{}}
	if err := r.world(ctx); err != nil {
		return nil, err
	}
	o.Progress("giving control what the release is made of")
	if err := o.Start(ctx, r.client); err != nil {
		return nil, err
	}
	doing, stuck := "", time.Now()
	for {
		var s api.Status
		if err := r.client.Do(ctx, http.MethodGet, "/releases/"+o.Version, nil, &s); err != nil {
			return nil, err
		}
		if s.Gold != nil {
			g := release.Gold{Outputs: s.Gold.Outputs, List: s.Gold.List}
			return r.client.Files(ctx, g.Made())
		}
		for _, x := range s.Items {
			switch x.Status {
			case release.Stopped:
				return nil, fmt.Errorf("step %s: %s\n%s", x.Name, x.Failed, stage.Get(builder).Tail(2000))
			case release.InProgress:
				stuck = time.Now()
				if x.Name != doing {
					doing = x.Name
					o.Progress("step " + doing)
				}
			case release.Ready:
				if time.Since(stuck) > idle {
					return nil, fmt.Errorf("step %s finds no machine: %s\n%s", x.Name, x.Waiting, stage.Get(builder).Tail(2000))
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
