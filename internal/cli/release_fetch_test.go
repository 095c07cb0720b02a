package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"trysail/internal/api"
	"trysail/internal/tree"
	"trysail/release"
)

// TestAttackArtifactWithoutEnd: a control sends more bytes of an artifact than its ledger
// says, until the disk of whoever fetches it is full.
func TestAttackArtifactWithoutEnd(t *testing.T) {
	sent := 0
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for part := make([]byte, 1<<20); sent < 256<<20; {
			n, err := w.Write(part)
			if sent += n; err != nil {
				return
			}
		}
	}))
	sum := sha256.Sum256(s.Certificate().Raw)
	c := api.NewClient([]string{s.Listener.Addr().String()}, "", api.TrustFingerprint(hex.EncodeToString(sum[:]), time.Now))
	dir, err := tree.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	err = fetchArtifacts(t.Context(), c, []release.Artifact{{Path: "app", Digest: "sha256:" + strings.Repeat("0", 64), Size: 10, Mode: "0644"}}, dir)
	s.Close() // waits for the handler
	if err == nil || sent > 64<<20 {
		t.Errorf("%d bytes were taken: %v", sent, err)
	}
	if _, err := dir.Lstat("app"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not the artifact stays: %v", err)
	}
}
