package evidence

import (
	"crypto/rand"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

func signedOver(t testing.TB, lines [][]byte) *Checkpoint {
	t.Helper()
	root, err := tree(t, lines).Root(int64(len(lines)))
	if err != nil {
		t.Fatal(err)
	}
	return &Checkpoint{Stream: "release.1", Size: int64(len(lines)), Root: root}
}

// TestReplica: a disk that is damaged is told from a control that lost events. Only what
// control signed, and cannot go on from, speaks against control.
func TestReplica(t *testing.T) {
	ten, other := events(1, 10, "a"), events(1, 10, "b")
	without := func(n int) [][]byte { return slices.Concat(ten[:n-1], ten[n:]) }
	changed := slices.Clone(ten)
	changed[3] = []byte(`{"seq":4,"what":"x"}`)
	twice := slices.Concat(ten[:5], ten[4:5], ten[5:]) // what a second writer leaves
	for _, x := range []struct {
		what    string
		lines   [][]byte // on the disk
		signed  [][]byte // under the checkpoint that is there; nil: there is none
		control [][]byte
		want    Finding
		damage  string
	}{
		{"the same", ten, ten, ten, Agrees, ""},
		{"control has more", ten[:6], ten[:6], ten, Agrees, ""},
		{"an empty stream", nil, nil, nil, Agrees, ""},
		{"killed before the events were written", ten[:6], ten[:8], ten, Agrees, ""},
		{"cut short", ten[:3], ten, ten, Agrees, ""},
		{"gone", nil, ten, ten, Agrees, ""},

		{"control was put back", ten, ten, ten[:6], ControlLost, ""},
		{"control lost the stream", ten, ten, nil, ControlLost, ""},
		{"control was put back, and went on", ten, ten, slices.Concat(ten[:6], other[6:]), ControlLost, ""},
		{"control was put back, and has more by now", ten[:7], ten[:7], slices.Concat(ten[:6], other[6:]), ControlLost, ""},
		{"control's history was changed", ten, ten, changed, ControlLost, ""},
		{"both: the disk is damaged too", without(4), ten, ten[:6], ControlLost, "line 4 is not event 4"},
		{"both: the disk is cut short too", ten[:3], ten, ten[:6], ControlLost, ""},

		{"an event is missing", without(4), ten, ten, Damaged, "line 4 is not event 4"},
		{"the first is missing", without(1), ten, ten, Damaged, "line 1 is not event 1"},
		{"an event twice", twice, ten, ten, Damaged, "line 6 is not event 6"},
		{"a line is no event", slices.Concat(ten[:9], [][]byte{[]byte("\x00\x00")}), ten, ten, Damaged, "line 10 is not event 10"},
		{"an empty line", slices.Concat(ten[:9], [][]byte{nil}, ten[9:]), ten, ten, Damaged, "line 10 is not event 10"},
		{"an event was changed", changed, ten, ten, Damaged, "its 10 lines are not the events that control signed"},
		{"more than control signed", ten, ten[:8], ten[:8], Damaged, "it has 10 lines, and control signed 8 events"},
		{"more than control signed, and control has them too", ten[:9], ten[:8], ten, Damaged, "it has 9 lines, and control signed 8 events"},
		{"cut short, and what is left was changed", changed[:6], ten, ten, Damaged, ""},

		{"an older copy, the same", ten, nil, ten, Agrees, ""},
		{"an older copy, control has more", ten[:4], nil, ten, Agrees, ""},
		{"an older copy, damaged", without(4), nil, ten, Damaged, "line 4 is not event 4"},
		{"an older copy has more", ten, nil, ten[:6], Unproven, ""},
		{"an older copy has something else", changed, nil, ten, Unproven, ""},
	} {
		var signed *Checkpoint
		if x.signed != nil {
			signed = signedOver(t, x.signed)
		}
		r, err := ReadReplica(x.lines, signed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Against(tree(t, x.control))
		if err != nil || got != x.want {
			t.Errorf("%s: finding %d, want %d (%v)", x.what, got, x.want, err)
		}
		if r.Damage != x.damage {
			t.Errorf("%s: the damage is %q, want %q", x.what, r.Damage, x.damage)
		}
	}
}

// TestSignature: a note is made again from its checkpoint and its signature.
func TestSignature(t *testing.T) {
	private, public, err := note.GenerateKey(rand.Reader, "trysail.fleet.0123")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	c := signedOver(t, events(1, 3, "a"))
	signed, err := note.Sign(&note.Note{Text: c.Text()}, signer)
	if err != nil {
		t.Fatal(err)
	}
	again := c.Note(key.Name(), Signature(signed))
	if string(again) != string(signed) {
		t.Errorf("%q, want %q", again, signed)
	}
	if got, err := ReadNote(again, key); err != nil || *got != *c {
		t.Errorf("it reads as %v (%v)", got, err)
	}
	for _, text := range []string{"", "x", c.Text(), string(signed) + "— another abc\n"} {
		if s := Signature([]byte(text)); s != "" {
			t.Errorf("the signature of %q is %q", text, s)
		}
	}
}
