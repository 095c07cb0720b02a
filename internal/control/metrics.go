package control

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"trysail/release"
)

// collector gives what control knows in the form of Prometheus. It counts at the
// moment it is asked, from the same folded states as everything else.
type collector struct {
	c                                                    *Control
	releases, items, machines, slack, events, lost, late *prometheus.Desc
	pending, undelivered, kept                           *prometheus.Desc
}

func newCollector(c *Control) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("trysail_"+name, help, labels, nil)
	}
	return &collector{
		c:           c,
		releases:    desc("releases", "Releases by phase.", "phase"),
		items:       desc("items", "Items of a running release by status.", "release", "status"),
		machines:    desc("machines", "Machines of the fleet by rank and condition.", "rank", "condition"),
		slack:       desc("slack_seconds", "Ship date minus the time at which the rest of a running release is done.", "release"),
		events:      desc("ledger_events", "Events of a release's ledger.", "release"),
		lost:        desc("leases_lost_total", "Leases of a release that ended without a result.", "release"),
		late:        desc("results_refused_total", "Results of a release that came too late.", "release"),
		pending:     desc("notices_pending", "Notices on their way to a target.", "target"),
		undelivered: desc("notices_undelivered_total", "Notices that a target did not take within a day.", "target"),
		kept:        desc("checkpoint_events", "Events of a release's ledger under the last checkpoint in version control.", "release"),
	}
}

// Describe implements prometheus.Collector.
func (m *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.releases, m.items, m.machines, m.slack, m.events, m.lost, m.late, m.pending, m.undelivered, m.kept} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	phases := map[release.Phase]int{release.Running: 0, release.Holding: 0, release.Done: 0, release.Ended: 0}
	for _, version := range m.c.versions() {
		st := m.c.state(version)
		if st == nil {
			continue
		}
		phases[st.Phase]++
		gauge(m.events, float64(st.Head), version)
		counter(m.lost, float64(st.Lost), version)
		counter(m.late, float64(len(st.Refusals)), version)
		if st.Over() {
			continue
		}
		if out, err := m.c.outlook(st); err != nil {
			m.c.o.Log.Error("slack", "release", version, "err", err)
		} else {
			gauge(m.slack, out.Slack.Seconds(), version)
		}
		count := map[release.Status]int{}
		for _, status := range st.Statuses() {
			count[status]++
		}
		for status, n := range count {
			gauge(m.items, float64(n), version, string(status))
		}
	}
	m.c.notices.mu.Lock()
	for target := range m.c.notices.told {
		gauge(m.pending, float64(m.c.notices.open[target]), target)
		counter(m.undelivered, float64(m.c.notices.lost[target]), target)
	}
	m.c.notices.mu.Unlock()
	m.c.anchor.mu.Lock()
	for version, size := range m.c.anchor.size {
		gauge(m.kept, float64(size), version)
	}
	m.c.anchor.mu.Unlock()
	for phase, n := range phases {
		gauge(m.releases, float64(n), string(phase))
	}
	type kind struct{ rank, condition string }
	kinds := map[kind]int{}
	now := time.Now()
	for _, x := range m.c.machines() {
		kinds[kind{string(x.Rank), string(x.At(m.c.mono(now)))}]++
	}
	for k, n := range kinds {
		gauge(m.machines, float64(n), k.rank, k.condition)
	}
}

// metrics answers Prometheus, which shows a token like everybody else.
func (c *Control) metrics() http.HandlerFunc {
	reg := prometheus.NewRegistry()
	reg.MustRegister(newCollector(c))
	h := promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := c.caller(r)
		if err == nil && !q.may(Viewer) {
			err = &DeniedError{q.name() + " may not read metrics", "use a token with role viewer"}
		}
		if err != nil {
			c.fail(w, r, err)
			return
		}
		h.ServeHTTP(w, r)
	}
}
