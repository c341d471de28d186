package consensus

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

// counted counts what is written to a stream.
type counted struct {
	Stream
	writes, bytes *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	c.writes.Add(1)
	c.bytes.Add(int64(len(b)))
	return c.Stream.Write(b)
}

var idleNames = []string{"a", "b", "c"}

func manyGroups(n int) []Group {
	var all []Group
	for i := range n {
		all = append(all, Group{ID: uint32(i), Heartbeat: 500 * time.Millisecond, Voters: []string{idleNames[i%3], idleNames[(i+1)%3], idleNames[(i+2)%3]}})
	}
	return all
}

// TestBeatsTravelTogether counts what three nodes with 60 idle groups write.
// Each leader has 40 heartbeats to send in a tenth to a fifth of its timeout;
// nobody may miss them.
func TestBeatsTravelTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writes, bytes atomic.Int64
		c := newCluster(t, nil, idleNames...)
		c.config = func(cfg *Config) {
			from := cfg.Node
			cfg.Dial = func(_ context.Context, to string, snapshot bool) (Stream, error) {
				s, err := c.dial(from, to, snapshot)
				return counted{s, &writes, &bytes}, err
			}
		}
		c.startAll(manyGroups(60)...)
		defer c.stopAll()
		for i := range 60 {
			c.leader(uint32(i))
		}
		time.Sleep(10 * time.Second)
		before := c.terms(60)
		writes.Store(0)
		time.Sleep(10 * time.Second)
		if after := c.terms(60); !slices.Equal(before, after) {
			t.Error("there were elections")
		}
		// Of six ways, each with a message of heartbeats and one of answers in 20 ms.
		if n := writes.Load() / 10; n > 6*2*50 {
			t.Errorf("%d writes a second", n)
		}
	})
}

// terms returns the term of each group at each node.
func (c *cluster) terms(groups int) (terms []uint64) {
	for _, name := range c.names {
		for i := range groups {
			terms = append(terms, c.host(name).group(uint32(i)).instance().CurrentTerm())
		}
	}
	return terms
}

// puppet is a node played by a test: it speaks with host a by hand.
type puppet struct {
	t    *testing.T
	to   net.Conn
	from *wire.Reader
}

// puppets returns a host a with a replica of group 1, and the other node x.
func puppets(t *testing.T) (*cluster, *puppet) {
	c := newCluster(t, nil, "a")
	ends := make(chan net.Conn, 1)
	c.config = func(cfg *Config) {
		cfg.Dial = func(context.Context, string, bool) (Stream, error) {
			a, b := net.Pipe()
			select {
			case ends <- b:
				return a, nil
			default:
				return nil, errors.New("x has a stream")
			}
		}
	}
	c.start("a", Group{ID: 1, Voters: []string{"a", "x"}})
	in, out := net.Pipe()
	go func() { _ = c.host("a").Serve("x", out) }()
	p := &puppet{t: t, to: in}
	p.say(&wire.RaftMessage{Body: &wire.RaftMessage_Life{Life: &wire.NodeLife{Life: 1, Nonce: 1}}})
	_ = c.host("a").peer("x").send(&wire.RaftMessage{Group: 2}, false)
	p.from = wire.NewReader(<-ends, wire.NodeFrame)
	return c, p
}

func (p *puppet) say(m *wire.RaftMessage) {
	p.t.Helper()
	if _, err := p.to.Write(wire.AppendMessage(nil, m)); err != nil {
		p.t.Error(err)
	}
}

// hear returns the next message that is about group 1 and no question of its own.
func (p *puppet) hear() *wire.RaftMessage {
	p.t.Helper()
	for {
		m, err := p.from.Raft()
		if err != nil {
			p.t.Fatal(err)
		}
		if m.GetBeatReplies() != nil || m.GetAppendReply() != nil || m.GetBeats() != nil || m.GetAppend() != nil {
			return m
		}
	}
}

// TestBeatsAreAnsweredInOrder sends a heartbeat, an AppendEntries of the next
// term, and again a heartbeat of the term before: the first is taken, the last
// refused, and the answers come in that order. A follower that answered
// heartbeats beside its main loop, or answers that overtook, would let the old
// leader believe that it still leads.
func TestBeatsAreAnsweredInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := puppets(t)
		defer c.stopAll()
		beat := func(id, term uint64) *wire.RaftMessage {
			return &wire.RaftMessage{Id: id, Body: &wire.RaftMessage_Beats{Beats: &wire.Beats{Beats: []*wire.Beat{{Group: 1, Term: term}}}}}
		}
		p.say(beat(100, 5))
		p.say(&wire.RaftMessage{Group: 1, Id: 7, Body: &wire.RaftMessage_Append{Append: &wire.AppendEntries{Term: 6}}})
		p.say(beat(101, 5))
		m := p.hear()
		if r := m.GetBeatReplies().GetReplies(); len(r) != 1 || m.Id != 100 || r[0].Offset != 0 || !r[0].Success || r[0].Term != 5 {
			t.Errorf("first answer: %v", m)
		}
		m = p.hear()
		if r := m.GetAppendReply(); m.Id != 7 || !r.GetSuccess() || r.GetTerm() != 6 {
			t.Errorf("second answer: %v", m)
		}
		m = p.hear()
		if r := m.GetBeatReplies().GetReplies(); len(r) != 1 || m.Id != 101 || r[0].Success || r[0].Term != 6 {
			t.Errorf("third answer: %v", m)
		}
	})
}

// TestBeatsNeverOvertake: a heartbeat that waits for others leaves before what
// is sent after it, an entry or a hint.
func TestBeatsNeverOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, p := puppets(t)
		defer c.stopAll()
		x := c.host("a").peer("x")
		ended := make(chan error, 2)
		for _, bulk := range []bool{true, false} {
			x.beats.add(1, 0, &raft.AppendEntriesRequest{Term: 9}, func(_ *wire.BeatReply, err error) { ended <- err })
			_ = x.send(appendMessage(1, 0, &raft.AppendEntriesRequest{Term: 9}), bulk)
			if m := p.hear(); len(m.GetBeats().GetBeats()) != 1 {
				t.Errorf("bulk %v: first came %v", bulk, m)
			}
			if m := p.hear(); m.GetAppend() == nil {
				t.Errorf("bulk %v: then came %v", bulk, m)
			}
		}
		for range 2 {
			if err := <-ended; !errors.Is(err, errTimeout) {
				t.Errorf("a heartbeat without an answer ends with %v", err)
			}
		}
	})
}
