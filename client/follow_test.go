package client

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/wire"
)

// next checks that the follow yields seq from to to.
func next(t *testing.T, f *Follow, from, to uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for seq := from; seq <= to; seq++ {
		e, err := f.Next(ctx)
		if err != nil {
			t.Fatalf("Next = %v, want seq %d", err, seq)
		}
		if e.Seq != seq || e.Room != "r" || e.Content != fmt.Sprint(seq) {
			t.Fatalf("Next = %+v, want seq %d", e, seq)
		}
	}
}

// count says the events from to to, whose contents are their seq.
func (w *world) count(from, to int) {
	for i := from; i <= to; i++ {
		w.say("r", fmt.Sprint(i))
	}
}

func follow(t *testing.T, c *Client, after uint64) *Follow {
	t.Helper()
	f, err := c.Follow(context.Background(), "r", after)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFollow(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *world, *Client)
	}{
		{"from the beginning", func(t *testing.T, w *world, c *Client) {
			w.count(1, 3)
			f := follow(t, c, 0)
			w.count(4, 5)
			next(t, f, 1, 5)
			if f.Head() != 5 {
				t.Errorf("Head = %d", f.Head())
			}
		}},
		{"from a position", func(t *testing.T, w *world, c *Client) {
			w.count(1, 5)
			next(t, follow(t, c, 3), 4, 5)
		}},
		{"from the head", func(t *testing.T, w *world, c *Client) {
			w.count(1, 5)
			f, err := c.FollowFromHead(context.Background(), "r")
			if err != nil {
				t.Fatal(err)
			}
			w.cutAll()
			w.count(6, 7)
			next(t, f, 6, 7)
		}},
		{"doubles are dropped", func(t *testing.T, w *world, c *Client) {
			f := follow(t, c, 0)
			w.count(1, 3)
			next(t, f, 1, 3)
			w.mu.Lock()
			for s := range w.sessions {
				for id := range s.follows {
					s.push(id, w.rooms["r"]...)
				}
			}
			w.mu.Unlock()
			w.count(4, 4)
			next(t, f, 4, 4)
		}},
		{"a hole is fetched", func(t *testing.T, w *world, c *Client) {
			w.mute = func(seq uint64) bool { return seq > 2 && seq < 600 }
			f := follow(t, c, 0)
			w.count(1, 610)
			next(t, f, 1, 610)
			if len(sayings(w, (*wire.Frame).GetHistory)) == 0 {
				t.Error("no history was asked for")
			}
		}},
		{"resumes elsewhere", func(t *testing.T, w *world, c *Client) {
			f := follow(t, c, 0)
			w.count(1, 3)
			next(t, f, 1, 3)
			w.mu.Lock()
			w.down["a:1"] = true
			w.mu.Unlock()
			w.cutAll()
			w.count(4, 6)
			next(t, f, 4, 6)
			synctest.Wait() // the events may have overtaken Welcome
			if node, _ := c.Node(); node != "b:1" {
				t.Errorf("the node is %s", node)
			}
			if all := sayings(w, (*wire.Frame).GetFollow); all[1].AfterSeq != 3 || all[1].Epoch != 1 {
				t.Errorf("it resumed with %v", all[1])
			}
		}},
		{"the epoch changes", func(t *testing.T, w *world, c *Client) {
			f := follow(t, c, 0)
			w.count(1, 2)
			synctest.Wait()
			w.mu.Lock()
			w.epoch = 2
			w.mu.Unlock()
			w.cutAll()
			next(t, f, 1, 2)
			var changed *EpochChanged
			if _, err := f.Next(context.Background()); !errors.As(err, &changed) || changed.Old != 1 || changed.New != 2 {
				t.Errorf("Next = %v", err)
			}
		}},
		{"too far", func(t *testing.T, w *world, c *Client) {
			w.follow = func(*wire.Follow) *wire.Error {
				e := wire.Errorf(wire.CodeTooFar, "gone")
				e.HeadSeq = 9
				return e
			}
			var far *TooFar
			if _, err := c.Follow(context.Background(), "r", 1); !errors.As(err, &far) || far.Head != 9 {
				t.Errorf("Follow = %v", err)
			}
		}},
		{"refused for a while", func(t *testing.T, w *world, c *Client) {
			refusals := 3
			w.follow = func(*wire.Follow) *wire.Error {
				if refusals--; refusals < 0 {
					return nil
				}
				return wire.Errorf(wire.CodeOverloaded, "later").After(time.Second)
			}
			w.count(1, 1)
			next(t, follow(t, c, 0), 1, 1)
		}},
		{"ended by the node", func(t *testing.T, w *world, c *Client) {
			f := follow(t, c, 0)
			w.count(1, 1)
			next(t, f, 1, 1)
			for _, code := range []string{wire.CodeUnavailable, wire.CodeForbidden} {
				w.mu.Lock()
				for s := range w.sessions {
					for id := range s.follows {
						delete(s.follows, id)
						s.fail(id, wire.Errorf(code, "over"))
					}
				}
				w.mu.Unlock()
				if code == wire.CodeUnavailable {
					w.count(2, 2)
					next(t, f, 2, 2)
				}
			}
			if _, err := f.Next(context.Background()); !errors.Is(err, ErrForbidden) {
				t.Errorf("Next = %v", err)
			}
		}},
		{"closed", func(t *testing.T, w *world, c *Client) {
			f := follow(t, c, 0)
			f.Close()
			synctest.Wait()
			w.mu.Lock()
			for s := range w.sessions {
				if len(s.follows) != 0 {
					t.Error("the node still sends")
				}
			}
			w.mu.Unlock()
			if _, err := f.Next(context.Background()); !errors.Is(err, ErrClosed) {
				t.Errorf("Next = %v", err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c := w.dial()
				test.run(t, w, c)
				c.Close()
				if len(c.follows) != 0 {
					t.Errorf("%d follows are left", len(c.follows))
				}
			})
		})
	}
}

// A reader that stops holds a bounded number of events, and nobody up: neither
// the client's other follows nor its sends. It misses nothing.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial()
		slow := follow(t, c, 0)
		quick := follow(t, c, 0)
		const events = 3*followEvents + 17
		for i := 1; i <= events; i++ {
			if _, err := c.Publish(context.Background(), Message{Room: "r", Content: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
			next(t, quick, uint64(i), uint64(i))
		}
		slow.mu.Lock()
		if n := len(slow.queue); n != followEvents || !slow.full {
			t.Errorf("%d events wait, full is %v", n, slow.full)
		}
		slow.mu.Unlock()
		w.mu.Lock()
		for s := range w.sessions {
			if len(s.follows) != 1 {
				t.Errorf("the node sends to %d follows", len(s.follows))
			}
		}
		w.mu.Unlock()
		next(t, slow, 1, events)
		c.Close()
	})
}

// A client with many follows asks for a few at a time, and resumes them all.
func TestManyFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial()
		const rooms = 200
		var all []*Follow
		for i := range rooms {
			f, err := c.Follow(context.Background(), fmt.Sprint(i), 0)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, f)
		}
		for range 2 {
			w.cutAll()
			for i := range all {
				w.say(fmt.Sprint(i), fmt.Sprint(len(w.rooms[fmt.Sprint(i)])))
			}
		}
		for i, f := range all {
			if batch, err := f.NextBatch(context.Background(), 1); err != nil || batch[0].Seq != 1 {
				t.Errorf("follow %d: %v, %v", i, batch, err)
			}
			if e, err := f.Next(context.Background()); err != nil || e.Seq != 2 {
				t.Errorf("follow %d: %v, %v", i, e, err)
			}
		}
		c.Close()
	})
}

func TestBatchesAndEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial()
		w.count(1, 10)
		f := follow(t, c, 0)
		synctest.Wait()
		batch, err := f.NextBatch(context.Background(), 4)
		if err != nil || len(batch) != 4 || batch[3].Seq != 4 {
			t.Errorf("NextBatch = %v, %v", batch, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var last error
		n := 0
		for _, err := range f.Events(ctx) {
			n, last = n+1, err
		}
		if n != 7 || !errors.Is(last, context.DeadlineExceeded) {
			t.Errorf("Events yielded %d times, then %v", n, last)
		}
		page, err := c.History(context.Background(), "r", 2, 3, Linearizable())
		if err != nil || len(page.Events) != 3 || page.Events[0].Seq != 3 || !page.More || page.Head != 10 {
			t.Errorf("History = %+v, %v", page, err)
		}
		if doc, err := c.Query(context.Background(), "members"); err != nil || string(doc) != "members" {
			t.Errorf("Query = %s, %v", doc, err)
		}
		c.Close()
	})
}
