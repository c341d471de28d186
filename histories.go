package starling

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/wire"
)

// histories are sessions for pages of history, beside those of links: a page is long,
// and events behind it on one stream would wait for it. They are opened for those who
// ask, and end when nobody has for a while.
type histories struct {
	node    *Node
	ctx     context.Context // of the sessions; set before the first is opened
	running sync.WaitGroup

	mu  sync.Mutex
	all map[string]*history
	old map[string]time.Time // when nodes last said that they do not serve such sessions
}

// history is the session to one node.
type history struct {
	slots *slots // one for each page that is asked for
	// opened is closed when session is set, or ended.
	opened, ended chan struct{}
	session       *client.Session
	asked         time.Time // the last time; guarded by histories.mu
}

const (
	// historyAsks is how many pages are asked of one node at once.
	historyAsks = 32
	// historyWithin bounds the wait for a page; even if as much as may be asked for
	// comes at the least rate that bulk has.
	historyWithin = 10 * time.Second
	// historyIdle is how long a session outlives its last page.
	historyIdle = time.Minute
	// historyOpen bounds the opening of a session.
	historyOpen = 5 * time.Second
	// historyStall is how long the asker may take nothing: bulk waits for its turn.
	historyStall = time.Minute
	// historyOld is after how long a node of an older release is tried again.
	historyOld = time.Minute
)

func newHistories(n *Node) *histories {
	return &histories{node: n, all: make(map[string]*history), old: make(map[string]time.Time)}
}

// begin lets sessions be opened until ctx ends.
func (h *histories) begin(ctx context.Context) { h.ctx = ctx }

// ask asks a node for a page. A node of an older release is asked over its link.
func (h *histories) ask(ctx context.Context, node string, f *wire.Frame) (*wire.Frame, error) {
	k := h.node.links.get(node)
	if k == nil || h.isOld(node) {
		return k.ask(ctx, f)
	}
	x := h.get(node)
	if x == nil {
		return nil, wire.Errorf(wire.CodeUnavailable, "the node is going away")
	}
	if x.slots.take(ctx, f.GetHistory().GetApp()+askedFor(ctx)) != nil {
		return nil, wire.Errorf(wire.CodeUnavailable, "many ask the node that knows").After(leaderAgain)
	}
	defer x.slots.give()
	select {
	case <-x.opened:
		a, err := (&link{Session: x.session}).ask(ctx, f)
		if err != nil && h.isOld(node) {
			return k.ask(ctx, f)
		}
		return a, err
	case <-x.ended:
		if h.isOld(node) {
			return k.ask(ctx, f)
		}
		return nil, wire.Errorf(wire.CodeUnavailable, "the node that knows cannot be reached now").After(leaderAgain)
	case <-ctx.Done():
		return nil, wire.Errorf(wire.CodeUnavailable, "the node that knows does not answer").After(leaderAgain)
	}
}

// followersAsk marks a context of those who read history because they fell behind: they
// have turns of their own beside those who ask for pages.
type followersAsk struct{}

func askedFor(ctx context.Context) string {
	if ctx.Value(followersAsk{}) != nil {
		return "\x00followers" // no app has that in its name
	}
	return ""
}

// isOld reports whether a node has said that it does not serve such sessions.
func (h *histories) isOld(node string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	said, ok := h.old[node]
	return ok && time.Since(said) < historyOld
}

// get returns the session to a node, which may have to be opened; nil while this node
// goes away.
func (h *histories) get(node string) *history {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.all[node]
	if x == nil {
		if h.ctx.Err() != nil {
			return nil
		}
		x = &history{slots: newSlots(historyAsks), opened: make(chan struct{}), ended: make(chan struct{})}
		h.all[node] = x
		h.running.Go(func() { h.run(node, x) })
	}
	x.asked = time.Now()
	return x
}

// run opens a session and serves it until it ends, or nobody has asked for a while.
func (h *histories) run(node string, x *history) {
	ctx, end := context.WithCancel(h.ctx)
	defer end()
	err := h.serve(ctx, end, node, x)
	h.mu.Lock()
	if h.all[node] == x {
		delete(h.all, node)
	}
	h.mu.Unlock()
	close(x.ended)
	h.node.log.Debug("history session ended", "peer", node, "err", err)
}

func (h *histories) serve(ctx context.Context, end func(), node string, x *history) error {
	open, cancel := context.WithTimeout(ctx, historyOpen)
	s, err := h.node.mesh.Open(open, node, mesh.StreamHistory)
	cancel()
	if err != nil {
		return err
	}
	x.session = client.NewSession(client.SessionConfig{
		Commands: historyStream{s, h, node}, MaxFrame: wire.NodeFrame, MaxUnsent: linkUnsent, Compress: true,
	})
	close(x.opened)
	var idle sync.WaitGroup
	idle.Go(func() {
		h.rest(ctx, node, x)
		end()
	})
	err = x.session.Run(ctx)
	end()
	idle.Wait()
	return err
}

// rest waits until nobody has asked for a while, and then lets those who do open
// another session.
func (h *histories) rest(ctx context.Context, node string, x *history) {
	for left := historyIdle; left > 0 && ctx.Err() == nil; {
		wait(ctx, left)
		h.mu.Lock()
		left = historyIdle - time.Since(x.asked)
		if left <= 0 && h.all[node] == x {
			delete(h.all, node)
		}
		h.mu.Unlock()
	}
}

// historyStream notes that a node does not know the kind of stream, before those who
// asked hear of the end.
type historyStream struct {
	*mesh.Stream
	h    *histories
	node string
}

func (s historyStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	return n, s.noted(err)
}

func (s historyStream) Write(b []byte) (int, error) {
	n, err := s.Stream.Write(b)
	return n, s.noted(err)
}

func (s historyStream) noted(err error) error {
	if errors.Is(err, mesh.ErrUnknownKind) {
		s.h.mu.Lock()
		defer s.h.mu.Unlock()
		s.h.old[s.node] = time.Now()
	}
	return err
}
