package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"trysail/internal/api"
	"trysail/release"
)

// stepRun is one time that a step ran: after a machine was lost, or to make gold the
// second time, it runs again, with a log of its own.
type stepRun struct {
	Run     int    `json:"run"` // from 1
	Machine string `json:"machine"`
	Epoch   int64  `json:"epoch"`
	Confirm bool   `json:"confirm,omitempty"` // the second build of gold
}

// releaseLog prints the log of one run of a step: run number n, or the last with 0.
func (a *app) releaseLog(ctx context.Context, version, step string, n int, follow bool) error {
	if a.json {
		return usage("a log is bytes as the step wrote them, and not JSON: leave --json away, or list the runs with --runs")
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	list, err := stepRuns(ctx, c, version, step)
	switch {
	case err != nil:
		return err
	case len(list) == 0:
		return usage("%s is no step of release %s, or has not begun: trysail release status %s", step, version, version)
	case n < 0 || n > len(list):
		return usage("%s ran %d time(s): trysail release log %s %s --runs", step, len(list), version, step)
	case n == 0:
		n = len(list)
	}
	if len(list) > 1 {
		x := list[n-1]
		fmt.Fprintf(a.stderr, "run %d of %d%s, on %s\n", n, len(list), secondly(x), x.Machine)
	}
	res, err := c.Open(ctx, http.MethodGet, fmt.Sprintf("/releases/%s/logs/%s/%d?follow=%v", version, step, list[n-1].Epoch, follow), nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(a.stdout, res.Body)
	return err
}

func secondly(x stepRun) string {
	if x.Confirm {
		return " (the second build of gold)"
	}
	return ""
}

// releaseRuns lists the runs of a step.
func (a *app) releaseRuns(ctx context.Context, version, step string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	list, err := stepRuns(ctx, c, version, step)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(list)
	}
	for _, x := range list {
		a.printf("%d  on %s%s, event %d\n", x.Run, x.Machine, secondly(x), x.Epoch)
	}
	return nil
}

// stepRuns reads them from the ledger.
func stepRuns(ctx context.Context, c *api.Client, version, step string) ([]stepRun, error) {
	events, err := c.Events(ctx, version)
	if err != nil {
		return nil, err
	}
	list := []stepRun{}
	for _, e := range events {
		if g, ok := e.Body.(release.Granted); ok && g.Item == step {
			list = append(list, stepRun{len(list) + 1, g.Machine, e.Seq, g.Confirm})
		}
	}
	return list, nil
}
