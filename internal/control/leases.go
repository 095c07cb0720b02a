package control

import (
	"cmp"
	"maps"
	"slices"

	"trysail/internal/api"
	"trysail/release"
)

// What is asked of all releases each second by each machine is not worked out
// from them each time: who holds which lease, and which stream has moved, is kept
// in step with every event that is folded ([Control.folded]).

// leases are those in force, in all releases.
type leases struct {
	of map[string]map[string]release.Lease // by release and item
	by map[string]map[api.Holding]bool     // by machine
}

func newLeases() leases {
	return leases{map[string]map[string]release.Lease{}, map[string]map[api.Holding]bool{}}
}

// put says which leases of a release are in force now, and gives the machines
// that gained or lost one.
func (x *leases) put(version string, now map[string]release.Lease) (touched []string) {
	old := x.of[version]
	for item, l := range old {
		if now[item].Epoch != l.Epoch {
			delete(x.by[l.Machine], api.Holding{Release: version, Item: item, Epoch: l.Epoch})
			if len(x.by[l.Machine]) == 0 {
				delete(x.by, l.Machine)
			}
			touched = append(touched, l.Machine)
		}
	}
	for item, l := range now {
		if old[item].Epoch == l.Epoch {
			continue
		}
		if x.by[l.Machine] == nil {
			x.by[l.Machine] = map[api.Holding]bool{}
		}
		x.by[l.Machine][api.Holding{Release: version, Item: item, Epoch: l.Epoch}] = true
		touched = append(touched, l.Machine)
	}
	x.of[version] = now
	if len(now) == 0 {
		delete(x.of, version)
	}
	return touched
}

// held lists what a machine holds, in an order that does not change.
func (x *leases) held(machine string) []api.Holding {
	return slices.SortedFunc(maps.Keys(x.by[machine]), func(a, b api.Holding) int {
		return cmp.Or(cmp.Compare(a.Release, b.Release), cmp.Compare(a.Item, b.Item))
	})
}

// heads are the lengths of all streams, in the order in which they last moved: a
// machine that has copied all up to some move is told only of what moved since.
type heads struct {
	moves int64
	last  map[string]head // by stream
	news  bell
	order []moved // the oldest first; of a stream's moves all but the last are passed over
}

type head struct{ move, events int64 }

type moved struct {
	move   int64
	stream string
}

func newHeads() heads { return heads{last: map[string]head{}} }

func (h *heads) put(stream string, events int64) {
	if h.last[stream].events == events {
		return
	}
	h.moves++
	h.last[stream] = head{h.moves, events}
	h.order = append(h.order, moved{h.moves, stream})
	h.news.ring()
	if len(h.order) > 2*len(h.last)+100 {
		h.order = slices.DeleteFunc(h.order, h.past)
	}
}

func (h *heads) past(m moved) bool { return h.last[m.stream].move != m.move }

// since lists the streams that moved after the nth move.
func (h *heads) since(n int64) []api.Copied {
	i, _ := slices.BinarySearchFunc(h.order, n+1, func(m moved, n int64) int { return cmp.Compare(m.move, n) })
	list := []api.Copied{}
	for _, m := range h.order[i:] {
		if !h.past(m) {
			list = append(list, api.Copied{Stream: m.stream, Events: h.last[m.stream].events})
		}
	}
	return list
}

// bell wakes all who wait for it. It is guarded by the lock of what it tells of:
// whoever looks takes the channel first, and misses nothing.
type bell struct{ rung chan struct{} }

// next is closed when the bell rings.
func (b *bell) next() <-chan struct{} {
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

func (b *bell) ring() {
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}
