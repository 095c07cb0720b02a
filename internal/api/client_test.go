package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestSlow: a request that did not come to its end in time is as one that was never made:
// a machine asks again, and does not take it for control's last word.
func TestSlow(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusRequestTimeout)
		fmt.Fprint(w, `{"message":"the request did not come to its end","hint":"ask again","code":"slow"}`)
	}))
	defer srv.Close()
	at := srv.Listener.Addr().String()
	err := NewClient([]string{at}, "", srv.Client()).Do(t.Context(), http.MethodPost, "/report", struct{}{}, nil)
	var away *UnreachableError
	var p *Problem
	if !errors.As(err, &away) || away.Sent || away.Address != at || !errors.As(err, &p) || p.Code != Slow || p.Status != http.StatusRequestTimeout {
		t.Errorf("%v", err)
	}
}
