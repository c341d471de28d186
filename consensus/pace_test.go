package consensus

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// lateStream delivers what is written to it after a time.
type lateStream struct {
	Stream
	after time.Duration
	sent  chan lateWrite
	once  sync.Once
	done  chan struct{}
	extra func() time.Duration // of each write, nil = none
}

type lateWrite struct {
	due  time.Time
	data []byte
}

func late(s Stream, after time.Duration) Stream {
	l := &lateStream{Stream: s, after: after, sent: make(chan lateWrite, 1024), done: make(chan struct{})}
	go l.deliver()
	return l
}

func (l *lateStream) deliver() {
	for {
		select {
		case w := <-l.sent:
			due := time.NewTimer(time.Until(w.due))
			select {
			case <-due.C:
			case <-l.done:
				due.Stop()
				return
			}
			if _, err := l.Stream.Write(w.data); err != nil {
				return
			}
		case <-l.done:
			return
		}
	}
}

func (l *lateStream) Write(b []byte) (int, error) {
	after := l.after
	if l.extra != nil {
		after += l.extra()
	}
	select {
	case l.sent <- lateWrite{time.Now().Add(after), bytes.Clone(b)}:
		return len(b), nil
	case <-l.done:
		return 0, errCut
	}
}

func (l *lateStream) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Stream.Close()
}

// acksOver proposes a command every few milliseconds to the leader of voters
// that are far apart, and returns the median time to the answer.
func acksOver(t *testing.T, oneWay, every time.Duration) time.Duration {
	c := newCluster(t, nil, "a", "b", "c")
	c.config = func(cfg *Config) {
		from := cfg.Node
		cfg.Dial = func(_ context.Context, to string, snapshot bool) (Stream, error) {
			s, err := c.dial(from, to, snapshot)
			if err != nil {
				return nil, err
			}
			return late(s, oneWay), nil
		}
		cfg.RTT = func(string) time.Duration { return 2 * oneWay }
	}
	c.startAll(one)
	defer c.stopAll()
	l := c.leader(1)
	c.mustPropose(l, 1, 1, "first")
	const n = 400
	var wg sync.WaitGroup
	took := make([]time.Duration, n)
	for i := range n {
		wg.Add(1)
		start := time.Now()
		c.host(l).Propose(1, fmt.Appendf(nil, "m%d", i), func(_ any, err error) {
			if err != nil {
				t.Errorf("m%d: %v", i, err)
			}
			took[i] = time.Since(start)
			wg.Done()
		})
		time.Sleep(every)
	}
	wg.Wait()
	slices.Sort(took)
	return took[n/2]
}

// TestFarVotersDoNotQueue: a command waits for the round trip that nobody can
// spare it, and little for those before it.
func TestFarVotersDoNotQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const trip = 100 * time.Millisecond
		p50 := acksOver(t, trip/2, 5*time.Millisecond)
		t.Logf("acks after %v, over a round trip of %v", p50, trip)
		if p50 > trip*115/100 {
			t.Errorf("half of the acks take %v or longer over a round trip of %v", p50, trip)
		}
	})
}

// TestSlowDiskIsNotFar: where each sync takes long, more entries under way would
// only be more syncs.
func TestSlowDiskIsNotFar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Bool
		c := newCluster(t, func(cfg *Config) {
			cfg.RTT = func(string) time.Duration { return time.Millisecond }
		}, "a", "b", "c")
		for _, n := range c.nodes {
			n.fs = errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if slow.Load() && op.Kind == errorfs.OpFileSyncData {
					time.Sleep(2 * farTrip)
				}
				return nil
			}))
		}
		c.startAll(one)
		defer c.stopAll()
		leader := c.host(c.leader(1))
		slow.Store(true)
		var open sync.WaitGroup
		for range 500 {
			open.Add(1)
			leader.Propose(1, []byte("m"), func(_ any, err error) {
				if err != nil {
					t.Error(err)
				}
				open.Done()
			})
			l := &leader.group(1).lanes
			l.mu.Lock()
			if l.running > leader.cfg.Depth {
				t.Errorf("%d entries are under way", l.running)
			}
			l.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
		open.Wait()
	})
}

func TestQuorumTrip(t *testing.T) {
	far := map[string]time.Duration{"b": 5, "c": 100, "d": 30, "e": 200}
	for _, c := range []struct {
		voters string
		want   time.Duration
	}{{"a", 0}, {"ab", 5}, {"abc", 5}, {"acd", 30}, {"abcd", 30}, {"abcde", 30}} {
		got := quorumTrip(strings.Split(c.voters, ""), "a", func(node string) time.Duration { return far[node] })
		if got != c.want {
			t.Errorf("voters %s: %d, not %d", c.voters, got, c.want)
		}
	}
}
