package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"trysail/internal/api"
	"trysail/internal/depot"
)

// TestUploadKeepsTheReserve: what is sent in one request is taken for as long as there
// is room, and no longer; whoever sent it is told to wait, and nothing of it is left.
func TestUploadKeepsTheReserve(t *testing.T) {
	c := station(t, "a")
	secret := made(t, c, token{Person: "p", Role: Operator})
	put := func(blob []byte) (int, api.Problem) {
		t.Helper()
		dg := digest.FromBytes(blob).String()
		r := httptest.NewRequest(http.MethodPut, "/v1/blobs/"+dg, io.MultiReader(bytes.NewReader(blob))) // of no length that is known
		r.Header.Set("Authorization", "Bearer "+secret)
		w := httptest.NewRecorder()
		c.Handler().ServeHTTP(w, r)
		var p api.Problem
		if w.Code != http.StatusCreated {
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatalf("%s: %v", w.Body, err)
			}
		}
		return w.Code, p
	}
	written := func() (n uint64) {
		t.Helper()
		list, err := filepath.Glob(filepath.Join(c.o.Depot.Dir(), "blobs", "sha256", ".new-*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range list {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			n += uint64(info.Size())
		}
		return n
	}
	const room = 10 << 20
	most := uint64(0)
	c.free = func(string) (uint64, error) {
		most = max(most, written())
		return max(reserve+room, written()) - written(), nil
	}
	if code, _ := put(bytes.Repeat([]byte("x"), room-between)); code != http.StatusCreated {
		t.Errorf("what fits: %d", code)
	}
	code, p := put(bytes.Repeat([]byte("y"), 5*room))
	if code != http.StatusInsufficientStorage || p.Code != api.Full || p.Hint == "" {
		t.Errorf("what does not fit: %d %+v", code, p)
	}
	if most < room/2 || most > room+between+1<<20 || written() != 0 {
		t.Errorf("%d bytes of it were written where %d have room, and %d are left", most, room, written())
	}
	c.free = func(string) (uint64, error) { return reserve - 1, nil }
	if code, p := put([]byte("z")); code != http.StatusInsufficientStorage || p.Code != api.Full {
		t.Errorf("on a full disk: %d %+v", code, p)
	}
}

// TestFullDepotIsFull: a depot that met the end of its disk is no failure of whoever
// asked: they wait.
func TestFullDepotIsFull(t *testing.T) {
	c := station(t)
	w := httptest.NewRecorder()
	c.fail(w, httptest.NewRequest(http.MethodPut, "/", nil), fmt.Errorf("put: %w", &depot.FullError{Dir: "/d", Err: unix.ENOSPC}))
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusInsufficientStorage || p.Code != api.Full || p.Hint == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
