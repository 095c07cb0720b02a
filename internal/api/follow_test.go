package api

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
)

// TestFollow: each event once and in order, whatever is cut off and wherever; it ends
// with the reader's word, the reader's error, or a problem of control's.
func TestFollow(t *testing.T) {
	const last = 9
	var asked, away atomic.Int64
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/releases/4.2/events" {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"there is no release","code":"not-found"}`)
			return
		}
		if asked.Add(1)%3 == 0 { // another decides, or none
			away.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		after, err := strconv.Atoi(r.Header.Get("Last-Event-Id"))
		if err != nil {
			t.Error(err)
		}
		for n := after + 1; n <= min(after+2, last); n++ {
			fmt.Fprintf(w, "id: %d\ndata: {\"seq\":%d}\n\n", n, n)
		}
		if n := after + 3; n <= last { // torn in the middle of the next
			fmt.Fprintf(w, "id: %d\nda", n)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	defer srv.Close()
	c := NewClient([]string{srv.Listener.Addr().String()}, "", srv.Client())
	collect := func(version string, after int64, stop func(n int) (bool, error)) (list []int, err error) {
		err = c.Follow(t.Context(), version, after, func(line []byte) (bool, error) {
			n, err := strconv.Atoi(string(bytes.Trim(line, `{"seq:}`)))
			if err != nil {
				return false, err
			}
			list = append(list, n)
			return stop(n)
		})
		return list, err
	}
	for after := range int64(last) {
		list, err := collect("4.2", after, func(n int) (bool, error) { return n == last, nil })
		var want []int
		for n := int(after) + 1; n <= last; n++ {
			want = append(want, n)
		}
		if err != nil || !slices.Equal(list, want) {
			t.Errorf("after %d: %v, %v", after, list, err)
		}
	}
	if away.Load() == 0 {
		t.Error("control was never away: this shows less than it should")
	}
	bad := errors.New("torn")
	if list, err := collect("4.2", 0, func(n int) (bool, error) { return false, bad }); !errors.Is(err, bad) || len(list) != 1 {
		t.Errorf("the reader's error: %v, %v", list, err)
	}
	var p *Problem
	if _, err := collect("9.9", 0, func(int) (bool, error) { return false, nil }); !errors.As(err, &p) || p.Code != "not-found" {
		t.Errorf("no such release: %v", err)
	}
}
