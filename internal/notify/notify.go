// Package notify takes what people must know away from control: by webhook and
// by e-mail.
//
// What is to be told follows from the ledger (package release), and what was told
// is in the ledger (package control). Here is what lies between: the file in which
// people say who is told what ([Load]), and the targets that it names. A [Target]
// is one webhook or one mailbox, so that each is down, and refuses, alone.
//
// A webhook gets a CloudEvent in structured JSON mode, signed as Standard Webhooks
// says if it has a secret, so receivers need no code that knows Trysail. A mailbox
// gets a plain text. Both are told at least once; whoever must tell a repeat has
// the event's id, the webhook-id and the Message-ID, which stay the same.
//
// Nothing secret stands in the file, in an error or in a log: secrets are in files
// that only their owner reads, and errors name a webhook by its host, because an
// address may be a secret itself.
package notify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strconv"
	"time"

	"trysail/release"
)

// Target is somewhere that notices go.
type Target interface {
	// Name is how the ledger names it; it holds no secret and stays the same.
	Name() string
	// Wants tells whether a notice is for it.
	Wants(n release.Notice) bool
	// Send hands over a notice. A [RefusedError] is about this notice; any other
	// error is about the target.
	Send(ctx context.Context, m Message) error
}

// RefusedError says that a target was there and did not take a notice.
type RefusedError struct{ What string }

func (e *RefusedError) Error() string { return e.What }

// DrillJudged is the kind of notice that no release gives: a drill has a verdict.
const DrillJudged release.NoticeKind = "drill-judged"

// kinds lists all that people may pick.
func kinds() []release.NoticeKind { return append(release.NoticeKinds(), DrillJudged) }

// Message is a notice on its way.
type Message struct {
	release.Notice
	// Drill is the run that a verdict is about, and Verdict what it came to; the
	// release is a rehearsal's then, and must not be taken for the real one.
	Drill   string
	Verdict string
	Release string
	Begun   time.Time // of the release
	Ship    time.Time
	Event   int64 // number of the event that it follows from, or that was the last
	At      time.Time
	Zone    *time.Location // of the team; nil: UTC
}

// ID names the notice: the same whenever it is sent, by whichever control.
func (m *Message) ID() string {
	if m.Drill != "" {
		return m.Drill + "/" + string(m.Kind)
	}
	id := m.Release + "/" + strconv.FormatInt(m.Event, 10) + "/" + string(m.Kind)
	if m.Item != "" {
		id += "/" + m.Item
	}
	return id
}

// source names the release among all there are: another fleet may have a 4.2 too.
func (m *Message) source() string {
	if m.Drill != "" {
		return "/trysail/drills/" + url.PathEscape(m.Drill)
	}
	return "/trysail/releases/" + url.PathEscape(m.Release) + "@" + m.Begun.UTC().Format("2006-01-02T15:04:05.000Z")
}

// key is source and id in few letters without a stop, which ends it in a signature.
func (m *Message) key() string {
	sum := sha256.Sum256([]byte(m.source() + " " + m.ID()))
	return hex.EncodeToString(sum[:16])
}

// event is a CloudEvent of version 1.0 in JSON. The library for these brings a
// JSON library of its own that nobody keeps any more; a test reads ours with it.
type event struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Subject     string    `json:"subject,omitempty"`
	Time        time.Time `json:"time"`
	ContentType string    `json:"datacontenttype"`
	Data        eventData `json:"data"`
}

type eventData struct {
	Release string             `json:"release"`
	Event   int64              `json:"event"`
	Kind    release.NoticeKind `json:"kind"`
	Item    string             `json:"item,omitempty"`
	People  []string           `json:"people"`
	What    string             `json:"what"`
	Ship    time.Time          `json:"ship,omitzero"`
	Drill   string             `json:"drill,omitempty"`
	Verdict string             `json:"verdict,omitempty"`
}

// JSON is the notice as a CloudEvent.
func (m *Message) JSON() ([]byte, error) {
	people := m.People
	if people == nil {
		people = []string{}
	}
	return json.Marshal(event{
		SpecVersion: "1.0", ID: m.ID(), Source: m.source(), Type: "trysail." + string(m.Kind), Subject: m.Item, Time: m.At.UTC(), ContentType: "application/json",
		Data: eventData{m.Release, m.Event, m.Kind, m.Item, people, m.What, m.Ship, m.Drill, m.Verdict},
	})
}
