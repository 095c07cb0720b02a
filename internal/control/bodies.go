package control

import (
	"net/http"
	"sync"

	"golang.org/x/sync/semaphore"
)

// What a request's JSON becomes in memory is many times as large as it is, at worst: three
// bytes of it make an empty lease. So the values of a body are counted before it is read
// as what it means, and nobody has more than some bytes of bodies read at a time. Then one
// caller costs less than 200 MB, whatever it sends, and holds up itself only.

const (
	// mostBodies are the bytes of requests of one caller that are answered at a time; those
	// that come on top of that wait.
	mostBodies = 8 << 20
	// leastBody is what a small request counts.
	leastBody = 2 << 10
)

// bodies are who has how much of its requests read now. The zero value is ready.
type bodies struct{ by sync.Map } // of *semaphore.Weighted, by caller: as many as there are machines and people

// read waits until a caller may have a request read. Done must be called when it is
// answered.
func (b *bodies) read(r *http.Request, who string) (done func(), err error) {
	if r.Body == nil || r.ContentLength == 0 {
		return func() {}, nil
	}
	size := int64(maxBody)
	if r.ContentLength > 0 {
		size = min(max(r.ContentLength, leastBody), maxBody)
	}
	v, _ := b.by.LoadOrStore(who, semaphore.NewWeighted(mostBodies))
	s := v.(*semaphore.Weighted)
	if err := s.Acquire(r.Context(), size); err != nil {
		return nil, err
	}
	return func() { s.Release(size) }, nil
}
