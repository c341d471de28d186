package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-im/starling/bench/internal/load"
	"github.com/starling-im/starling/bench/internal/talk"
)

// throngPart is the part that is many clients of several nodes, who do what they
// are told: one of the processes over which a crowd is spread, since a process may
// not open as many files as it takes.
const throngPart = "throng"

// A throngSpec tells a throng of whom it consists.
type throngSpec struct {
	Targets []talk.Target
	Began   int64    // since when stamps count, Unix ns
	Rooms   []string // by the number in stamps
	Bands   []band
}

// A band is clients who do the same.
type band struct {
	Name    string
	Rooms   []int // that each follows
	Clients int
	Homes   []int // the targets that they come to first, in turn
	Moves   bool  // to other targets, if that ends
	Froms   int   // over how many addresses they are spread; 0 = that of the machine
	Takes   int   // see talk.Place
	Many    bool  // speakers in its rooms: numbers say nothing of the order
	Deaf    bool  // who stalls does not even hear packets
}

// An order is what a throng is told, about one of its bands or about all.
type order struct {
	Do     string
	Band   int
	Homes  []int         // join: where they go, in turn; nil = as the band does
	Room   int           // await
	Number uint64        // await: the message that all must have
	Within time.Duration // join, await, back
}

// What a throng can be told.
const (
	doJoin  = "join"  // connect and follow
	doLeave = "leave" // and forget what was read
	doStall = "stall" // read no more
	doGoOn  = "go on" // read again
	doAwait = "await" // until all have a message
	doCount = "count" // from now on
	doBack  = "back"  // wait until all have lost their connection, and have had a message since
	doTell  = "tell"  // what was counted
)

// A tale is the answer of a throng.
type tale struct {
	Failed string      `json:",omitempty"`
	Bands  []bandTale  `json:",omitempty"`
	Back   *load.Times `json:",omitempty"` // from the end of a connection to a message that was sent after it
	Last   int64       `json:",omitempty"` // when the last one was back, Unix ns
}

// A bandTale is what was counted of a band.
type bandTale struct {
	Deliveries, Lost, Repeated int
	Times                      *load.Times
	Ends                       int            // connections that ended
	Refused                    map[string]int // attempts to come in, by code
}

// A throng is the clients of one process.
type throng struct {
	spec    throngSpec
	ctx     context.Context
	dialers []*talk.Dialer
	bands   []*herd
	began   time.Time
}

// A herd is a band that is there.
type herd struct {
	*throng
	band
	all    []*client
	places chan struct{} // of those who dial
	gate   atomic.Pointer[chan struct{}]
	from   atomic.Int64 // when counting began, since the throng did; 0 = it does not
	stop   context.CancelFunc
	work   sync.WaitGroup

	deliveries, lost, repeated, ends atomic.Int64
	shards                           [32]shard
	mu                               sync.Mutex
	refused                          map[string]int
	failed                           error
}

// A shard is the times of some clients.
type shard struct {
	mu    sync.Mutex
	times load.Times
}

// comeAtOnce bounds the handshakes of a band from many addresses at one time: a
// process on a machine with few processors is slower with more.
const comeAtOnce = 192

// runThrong does what it is told until there is nothing more to read.
func runThrong(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said := json.NewDecoder(in)
	t := &throng{ctx: ctx}
	if err := said.Decode(&t.spec); err != nil {
		return fmt.Errorf("a part of the bench is not to be called: %w", err)
	}
	// The wall clock is read once: what counts is how much later.
	t.began = time.Now().Add(-time.Duration(time.Now().UnixNano() - t.spec.Began))
	var err error
	if t.dialers, err = dialersTo(t.spec.Targets); err != nil {
		return err
	}
	for _, b := range t.spec.Bands {
		atOnce := comeAtOnce
		if b.Froms == 0 {
			atOnce = dialsAtOnce
		}
		t.bands = append(t.bands, &herd{throng: t, band: b, places: make(chan struct{}, atOnce), refused: map[string]int{}, stop: func() {}})
	}
	defer func() {
		for _, h := range t.bands {
			h.leave()
		}
	}()
	orders := make(chan order)
	go func() {
		defer cancel()
		for {
			var o order
			if said.Decode(&o) != nil {
				return
			}
			select {
			case orders <- o:
			case <-ctx.Done():
				return
			}
		}
	}()
	tell := json.NewEncoder(out)
	for {
		select {
		case o := <-orders:
			if err := tell.Encode(t.obey(o)); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// now is the time that stamps have.
func (t *throng) now() time.Duration { return time.Since(t.began) }

func (t *throng) obey(o order) (said tale) {
	var err error
	switch o.Do {
	case doCount:
		for _, h := range t.bands {
			h.count()
		}
	case doTell:
		for _, h := range t.bands {
			said.Bands = append(said.Bands, h.tell())
			err = errors.Join(err, h.failure())
		}
	default:
		if o.Band < 0 || o.Band >= len(t.bands) {
			err = fmt.Errorf("there is no band %d", o.Band)
			break
		}
		said, err = t.bands[o.Band].obey(o)
	}
	if err != nil {
		said.Failed = err.Error()
	}
	return said
}

func (h *herd) obey(o order) (said tale, err error) {
	switch o.Do {
	case doJoin:
		homes := h.Homes
		if len(o.Homes) > 0 {
			homes = o.Homes
		}
		h.join(homes)
		err = h.await(o.Within, "follow", func(c *client) bool { return c.joined })
	case doLeave:
		h.leave()
	case doStall:
		gate := make(chan struct{})
		h.gate.CompareAndSwap(nil, &gate)
	case doGoOn:
		h.goOn()
	case doAwait:
		err = h.await(o.Within, fmt.Sprintf("have message %d", o.Number), func(c *client) bool { return c.next[o.Room] > o.Number })
	case doBack:
		err = h.await(o.Within, "come back", func(c *client) bool { return c.backAt > 0 })
		said.Back = &load.Times{}
		last := time.Duration(0)
		for _, c := range h.all {
			c.mu.Lock()
			if c.backAt > 0 {
				said.Back.Note(c.backAt - c.lostAt)
				last = max(last, c.backAt)
			}
			c.mu.Unlock()
		}
		said.Last = h.spec.Began + int64(last)
	default:
		err = fmt.Errorf("nobody can %q", o.Do)
	}
	return said, err
}

// join has all come to homes in turn.
func (h *herd) join(homes []int) {
	ctx, stop := context.WithCancel(h.ctx)
	h.stop = stop
	h.all = nil
	for i := range h.Clients {
		c := newClient(h, i, homes[i%len(homes)])
		h.all = append(h.all, c)
		h.work.Go(func() { c.keep(ctx) })
	}
	h.work.Go(func() { h.beat(ctx) })
}

func (h *herd) leave() {
	h.stop()
	h.goOn()
	h.work.Wait()
}

func (h *herd) goOn() {
	if gate := h.gate.Swap(nil); gate != nil {
		close(*gate)
	}
}

// held waits while the band stalls.
func (h *herd) held() {
	if gate := h.gate.Load(); gate != nil {
		<-*gate
	}
}

// beat tells nodes that clients are there who do not stall.
func (h *herd) beat(ctx context.Context) {
	tick := time.NewTicker(talk.BeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, c := range h.all {
			c.mu.Lock()
			conn := c.conn
			c.mu.Unlock()
			if h.gate.Load() == nil {
				beatOnce(conn)
			}
		}
	}
}

// await waits until all are as they should be.
func (h *herd) await(within time.Duration, what string, as func(*client) bool) error {
	ctx, cancel := context.WithTimeout(h.ctx, within)
	defer cancel()
	for {
		missing := 0
		for _, c := range h.all {
			c.mu.Lock()
			if !as(c) {
				missing++
			}
			c.mu.Unlock()
		}
		if missing == 0 {
			return h.failure()
		}
		if pause(ctx, askEvery) != nil {
			return errors.Join(fmt.Errorf("%d of %d of %s do not %s after %v (refused: %v)", missing, len(h.all), h.Name, what, within, h.refusals()), h.failure())
		}
	}
}

func (h *herd) count() {
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		s.times = load.Times{}
		s.mu.Unlock()
	}
	h.deliveries.Store(0)
	h.ends.Store(0)
	h.mu.Lock()
	h.refused = map[string]int{}
	h.mu.Unlock()
	for _, c := range h.all {
		c.mu.Lock()
		c.lostAt, c.backAt = 0, 0
		c.mu.Unlock()
	}
	h.from.Store(int64(h.now()))
}

// tell ends counting.
func (h *herd) tell() bandTale {
	h.from.Store(0)
	said := bandTale{
		Deliveries: int(h.deliveries.Load()), Lost: int(h.lost.Load()), Repeated: int(h.repeated.Load()),
		Ends: int(h.ends.Load()), Times: &load.Times{},
	}
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		said.Times.Add(&s.times)
		s.mu.Unlock()
	}
	said.Refused = h.refusals()
	return said
}

// refusals are those to come in since counting began, by code.
func (h *herd) refusals() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.refused)
}

func (h *herd) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed == nil {
		h.failed = err
	}
}

func (h *herd) failure() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

// place is where the i-th client of the band is.
func (h *herd) place(i int) talk.Place {
	at := talk.Place{Takes: h.Takes}
	if h.Froms > 0 {
		n := i % h.Froms
		at.From = net.IPv4(127, 1, byte(n/250), byte(n%250+1))
	}
	if h.Deaf {
		at.Deaf = h.held
	}
	return at
}
