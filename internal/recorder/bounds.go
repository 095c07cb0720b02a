package recorder

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
)

// A build decides how much it asks of its recorder, and the recorder is in the process of
// an agent that holds the leases of other builds. So what one build may have of that process
// is bounded: descriptors, memory, and bytes on the disk of the machine.
const (
	mostConnections = 512       // of the build, at a time; further ones wait in the kernel
	mostRequests    = 512       // being answered at a time; further ones wait
	mostTunnels     = 3         // one within another
	mostQuestions   = 128       // to the machine's resolver at a time; further ones get no answer
	mostNames       = 50_000    // that have an address, and that a recording lists
	mostNotes       = 1000      // different connections and failures that are named
	mostNote        = 1 << 10   // bytes of one
	mostClients     = 256       // of one live dependency by UDP
	mostLeafs       = 1000      // certificates that are kept
	mostHeader      = 128 << 10 // bytes of the headers of a request
	mostSpooled     = 4 << 30   // bytes of requests that are on the disk at a time
	mostText        = 128 << 20 // bytes of addresses and headers that a recording holds: some 50,000 downloads
	others          = "others"  // what is not named
)

// text is how much of an exchange stays in memory, in bytes.
func (x *Exchange) text() int {
	const around = 500 // bytes of the exchange itself
	n := around + len(x.URL) + len(x.Accept) + len(x.Encoding) + len(x.Range) + len(x.Condition)
	for _, h := range []map[string][]string{x.Header, x.Trailer} {
		for k, list := range h {
			n += len(k) + len(strings.Join(list, ""))
		}
	}
	return n
}

// places are of what there is a bounded number.
type places chan struct{}

// take waits for a place; false if ctx ends first.
func (p places) take(ctx context.Context) bool {
	select {
	case p <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// try takes a place if one is free.
func (p places) try() bool {
	select {
	case p <- struct{}{}:
		return true
	default:
		return false
	}
}

func (p places) give() { <-p }

// spool is a file without a name that counts with all others of a recorder.
type spool struct {
	*os.File
	size int64
	all  *atomic.Int64
}

func newSpool(all *atomic.Int64) (*spool, error) {
	f, err := os.CreateTemp("", "trysail-request-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &spool{File: f, all: all}, nil
}

// Write implements io.Writer.
func (s *spool) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	if s.all.Add(int64(len(p))) > mostSpooled {
		return 0, errors.New("the requests of this build that are being sent are larger than what the recorder keeps")
	}
	return s.File.Write(p)
}

// Close closes the file, once: it is gone then.
func (s *spool) Close() error {
	s.all.Add(-s.size)
	s.size = 0
	return s.File.Close()
}
