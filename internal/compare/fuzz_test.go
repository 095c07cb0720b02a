package compare

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// FuzzFiles mutates each format. Whatever the bytes, a comparison ends, finds a
// difference exactly if there is one, and excuses a repetition of itself.
func FuzzFiles(f *testing.F) {
	member := func(sec int) entry {
		return entry{name: "a/b", data: fmt.Sprintf("built 12:00:%02d\n", sec), time: at(sec)}
	}
	for _, make := range []func(sec int) []byte{
		func(sec int) []byte { return gz(f, []byte(member(sec).data), at(sec)) },
		func(sec int) []byte { return xzip(f, []byte(member(sec).data)) },
		func(sec int) []byte { return zst(f, []byte(member(sec).data)) },
		func(sec int) []byte { return makeTar(f, member(sec)) },
		func(sec int) []byte { return makeZip(f, member(sec)) },
		func(sec int) []byte { return makeAr(member(sec)) },
		func(sec int) []byte {
			return []byte("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 60) + member(sec).data)
		},
		func(sec int) []byte { return []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x02tIME01crc!" + member(sec).data) },
		func(sec int) []byte {
			return []byte("%PDF-1.4 \x00/CreationDate (D:20261123120000) " + member(sec).data)
		},
		func(sec int) []byte { return []byte("BZh91AY&SY" + member(sec).data) },
		func(sec int) []byte {
			return []byte("\xcb\x0d\r\n\x00\x00\x00\x00\x01\x02\x03\x04\x00\x00\x00\x00code" + member(sec).data)
		},
		func(sec int) []byte { return []byte("a\n" + member(sec).data + "b\n") },
	} {
		f.Add(make(1), make(2))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		compare := func(itself *Report) *Report {
			r, err := Files(context.Background(), "out", Bytes(a), Bytes(b), Options{Itself: itself, Budget: 4 << 20})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		r := compare(nil)
		if same := string(a) == string(b); same != (len(r.Differences) == 0) {
			t.Fatalf("the same: %t, differences: %v", same, r.Differences)
		}
		if len(r.Differences) > maxDifferences+1 {
			t.Fatalf("%d differences", len(r.Differences))
		}
		if len(r.Excused) > 0 {
			t.Fatalf("excused by nothing: %v", r.Excused)
		}
		if again := compare(nil); show(again.Differences) != show(r.Differences) {
			t.Fatalf("not deterministic:\n%s\n%s", show(r.Differences), show(again.Differences))
		}
		again := compare(r)
		for _, p := range r.places {
			if p.opaque {
				return
			}
		}
		for _, d := range again.Beyond {
			if !strings.HasPrefix(d.What, "the member was added") && !strings.HasPrefix(d.What, "is another kind") {
				t.Fatalf("the same difference is not excused: %v", d)
			}
		}
	})
}

// FuzzUnits: two lines that differ have a unit that differs, within both.
func FuzzUnits(f *testing.F) {
	f.Add("built Mon Nov 23 12:00:01 UTC 2026 on a", "built Mon Nov 23 12:00:02 CET 2027 on b")
	f.Add("/tmp/x.aB3/1700000000 3b241101-e2bb-4255-8caf-4136c566a962", "/tmp/x.aB4/1700000001 00241101-e2bb-4255-8caf-4136c566a962")
	f.Add("took 1m2.5s é", "took 900ms e")
	f.Fuzz(func(t *testing.T, a, b string) {
		list := units([]byte(a), []byte(b))
		if (a == b) != (len(list) == 0) && a != b {
			t.Fatalf("%q and %q: %v", a, b, list)
		}
		for _, u := range list {
			if u.from < 0 || u.from > u.to || u.to > len(a) || u.bfrom < 0 || u.bfrom > u.bto || u.bto > len(b) {
				t.Fatalf("%q and %q: %+v", a, b, u)
			}
			_ = around([]byte(a), u.from, u.to)
		}
		at := 0
		for _, x := range tokenise([]byte(a)) {
			if x.from != at || x.to <= x.from {
				t.Fatalf("%q: tokens leave a gap at %d", a, at)
			}
			at = x.to
		}
		if at != len(a) {
			t.Fatalf("%q: tokens end at %d", a, at)
		}
	})
}
