package control

import (
	"fmt"
	"net/http"
	"strconv"
)

// events answers with a release's events as server-sent events: the number of an
// event is its id, so that whoever was cut off goes on after Last-Event-ID.
// Without an Accept header for them it gives the lines there are, and ends. Whoever may
// not read them any more is shown nothing further: the stream ends.
func (c *Control) events(w http.ResponseWriter, r *http.Request) {
	err := c.mayFollow(r)
	var s *stream
	if err == nil {
		s, err = c.stream(r.PathValue("version"))
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	live := r.Header.Get("Accept") == "text/event-stream"
	after, err := strconv.Atoi(r.Header.Get("Last-Event-ID"))
	if err != nil {
		after, err = strconv.Atoi(r.URL.Query().Get("after"))
	}
	if err != nil || after < 0 {
		after = 0
	}
	if live {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
	} else {
		w.Header().Set("Content-Type", "application/jsonl")
	}
	for {
		s.mu.Lock()
		news := s.news.next()
		lines := s.lines[min(after, len(s.lines)):]
		s.mu.Unlock()
		// Asked after the lines were taken: what was appended after a token was revoked is
		// not among those that are shown.
		if err := c.mayFollow(r); err != nil {
			c.o.Log.Info("a stream of events ends", "release", s.name, "err", err)
			return
		}
		for _, l := range lines {
			after++
			if live {
				_, err = fmt.Fprintf(w, "id: %d\ndata: %s\n\n", after, l)
			} else {
				_, err = fmt.Fprintf(w, "%s\n", l)
			}
			if err != nil {
				return // the reader is gone
			}
		}
		if !live {
			return
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		select {
		case <-r.Context().Done():
			return
		case <-c.over:
			return // another control decides: its events go on after the last id
		case <-news:
		}
	}
}

// mayFollow refuses whoever may not read a release's events.
func (c *Control) mayFollow(r *http.Request) error {
	q, err := c.caller(r)
	if err == nil && !q.may(Viewer) && q.machine == "" {
		err = &DeniedError{q.name() + " may not read events", "use a token"}
	}
	return err
}
