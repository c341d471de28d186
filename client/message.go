package client

import (
	"time"

	"github.com/google/uuid"

	"github.com/starling-im/starling/wire"
)

// Message is something to send to a room.
type Message struct {
	Room string
	// ID makes the send happen once, however often it is tried: it is unique
	// among the user's sends to the room (default: a UUIDv7).
	ID   string
	Kind Kind // default KindMessage
	// Type says what Content is, for the application; it may be empty.
	Type    string
	Content string
	// ActAs sends for another user, which the token must allow.
	ActAs string
	// Trace is an OpenTelemetry trace id under which nodes note what they do with the
	// message, and when; zero = not traced.
	Trace [16]byte
}

// Ack says that a send is on the disks of a quorum, and where in its room.
type Ack struct {
	ID    string // the message's
	MsgID string // given by the server, sortable by time
	Seq   uint64
	Epoch uint64
	Time  time.Time
	// Duplicate: it had taken effect before; the rest is the first Ack.
	Duplicate bool
}

// Event is one entry of a room's history.
type Event struct {
	Room    string
	Seq     uint64 // 1, 2, 3 … in each room
	User    string
	Kind    Kind
	Type    string
	Content string
	Time    time.Time
	ID      string   // the message's
	MsgID   string   // given by the server, sortable by time
	Trace   [16]byte // the message's
}

// Page is a part of a room's history.
type Page struct {
	Events []Event
	Head   uint64 // the newest seq of the room
	Epoch  uint64
	More   bool // there are events after this page
	// Age is how old the page may be: it has all that was acknowledged before its
	// replica's leader said so, Age before the node answered. 0 if it was asked for
	// as Linearizable; negative = unknown. See docs/reference/reads.md.
	Age time.Duration
}

func newID() string {
	id, err := uuid.NewV7()
	if err != nil {
		panic("client: the system has no random numbers: " + err.Error())
	}
	return id.String()
}

func ackOf(a *wire.Ack) Ack {
	return Ack{ID: a.ClientMsgId, MsgID: a.MsgId, Seq: a.Seq, Epoch: a.Epoch, Time: time.UnixMilli(a.TsMs), Duplicate: a.Duplicate}
}

func eventOf(room string, e *wire.Event) Event {
	is := Event{
		Room: room, Seq: e.Seq, User: e.User, Kind: Kind(e.Kind), Type: e.Type, Content: e.Content,
		Time: time.UnixMilli(e.TsMs), ID: e.ClientMsgId, MsgID: e.MsgId,
	}
	copy(is.Trace[:], e.Trace)
	return is
}

func pageOf(room string, p *wire.Page) Page {
	page := Page{Head: p.HeadSeq, Epoch: p.Epoch, More: p.HasMore, Events: make([]Event, 0, len(p.Events)), Age: -1}
	if p.AgeMs != nil {
		page.Age = time.Duration(*p.AgeMs) * time.Millisecond
	}
	for _, e := range p.Events {
		page.Events = append(page.Events, eventOf(room, e))
	}
	return page
}
