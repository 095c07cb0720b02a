// Package memorytest measures, for attack tests, how much memory reading something takes.
//
// Who writes a package, a source, a result or a blueprint can make a few kilobytes that a reader
// turns into gigabytes. A test of a reader gives it such bytes inside of [InUse], and holds the
// answer against a limit that is far above what real input takes and far below what a build server
// has. The race detector takes memory of its own: the Makefile runs these tests without it, by
// their names.
package memorytest

import (
	"runtime"
	"time"
)

// InUse gives the most bytes of heap that were in use, beyond those before, while do ran.
func InUse(do func()) (most uint64) {
	runtime.GC()
	var before, m runtime.MemStats
	runtime.ReadMemStats(&before)
	done := make(chan struct{})
	go func() { do(); close(done) }()
	for {
		select {
		case <-done:
			return most
		case <-time.After(10 * time.Millisecond):
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse-min(m.HeapInuse, before.HeapInuse))
		}
	}
}
