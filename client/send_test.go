package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/wire"
)

// nth returns a publish hook that ends the first sends as given.
func nth(ends ...any) func(*wire.Publish) (*wire.Error, cut) {
	return func(*wire.Publish) (*wire.Error, cut) {
		if len(ends) == 0 {
			return nil, cutNot
		}
		end := ends[0]
		ends = ends[1:]
		switch end := end.(type) {
		case string:
			return wire.Errorf(end, "said the test"), cutNot
		case cut:
			return nil, end
		}
		return nil, cutNot
	}
}

func TestPublish(t *testing.T) {
	always := func(code string) func(*wire.Publish) (*wire.Error, cut) {
		return func(*wire.Publish) (*wire.Error, cut) { return wire.Errorf(code, "always"), cutNot }
	}
	var rejected *Rejected
	var unknown *Unknown
	for _, test := range []struct {
		name      string
		publish   func(*wire.Publish) (*wire.Error, cut)
		as        any
		is        error
		duplicate bool
		content   string
	}{
		{name: "acked"},
		{name: "rejected", publish: nth(wire.CodeNotMember), as: &rejected, is: ErrNotMember},
		{name: "conflict", publish: nth(wire.CodeConflict), as: &rejected, is: ErrConflict},
		{name: "retried", publish: nth(wire.CodeRateLimited, wire.CodeOutOfOrder, wire.CodeNotLeader)},
		{name: "always overloaded", publish: always(wire.CodeOverloaded), as: &rejected, is: ErrOverloaded},
		{name: "always unavailable", publish: always(wire.CodeUnavailable), as: &unknown, is: context.DeadlineExceeded},
		{name: "internal", publish: nth(wire.CodeInternal), as: &unknown},
		{name: "refused after it may have taken effect", publish: nth(wire.CodeUnavailable, wire.CodeForbidden), as: &unknown, is: ErrForbidden},
		{name: "conflict after it may have taken effect", publish: nth(wire.CodeUnavailable, wire.CodeConflict), as: &rejected, is: ErrConflict},
		{name: "lost on the way there", publish: nth(cutBefore)},
		{name: "lost on the way back", publish: nth(cutAfter), duplicate: true},
		{name: "never answered", publish: func(*wire.Publish) (*wire.Error, cut) { return nil, ignore }, as: &unknown, is: context.DeadlineExceeded},
		{name: "too large", content: strings.Repeat("x", wire.Content+1), as: &rejected, is: ErrTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.publish = test.publish
				c := w.dial()
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				ack, err := c.Publish(ctx, Message{Room: "r", ID: "id", Content: test.content})
				switch {
				case test.as == nil && err != nil:
					t.Fatalf("Publish: %v", err)
				case test.as == nil && (ack.ID != "id" || ack.Seq != 1 || ack.Duplicate != test.duplicate):
					t.Errorf("ack is %+v", ack)
				case test.as != nil && !errors.As(err, test.as):
					t.Fatalf("err is %T %v", err, err)
				case test.is != nil && !errors.Is(err, test.is):
					t.Errorf("err is %v, want %v", err, test.is)
				}
				for _, p := range sayings(w, (*wire.Frame).GetPublish) {
					if p.ClientMsgId != "id" {
						t.Errorf("a try had the id %q", p.ClientMsgId)
					}
				}
				c.Close()
			})
		})
	}
}

// Whatever fails on the way, a room gets the sends in their order, once each.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		fences := map[string]uint32{}
		n := 0
		w.publish = func(p *wire.Publish) (*wire.Error, cut) {
			if need := fences[p.Room]; p.Attempt < need {
				return wire.Errorf(wire.CodeOutOfOrder, "fenced"), cutNot
			}
			n++
			switch {
			case n%7 == 3:
				fences[p.Room] = p.Attempt + 1
				return wire.Errorf(wire.CodeOverloaded, "full").After(30 * time.Millisecond), cutNot
			case n%31 == 30:
				clear(fences)
				return nil, cutBefore
			case n%29 == 28:
				clear(fences)
				return nil, cutAfter
			}
			return nil, cutNot
		}
		c := w.dial()
		const sends = 300
		errs := make(chan error, sends)
		for i := range sends {
			m := Message{Room: fmt.Sprint("r", i%3), ID: fmt.Sprint(i), Content: fmt.Sprint(i)}
			c.Send(context.Background(), m, func(_ Ack, err error) { errs <- err })
		}
		for range sends {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		for r := range 3 {
			events := w.rooms[fmt.Sprint("r", r)]
			if len(events) != sends/3 {
				t.Errorf("room %d has %d events", r, len(events))
			}
			for i, e := range events {
				if want := fmt.Sprint(3*i + r); e.Content != want {
					t.Fatalf("room %d has %q where %q belongs", r, e.Content, want)
				}
			}
		}
		if len(c.out.lanes) != 0 || len(c.slots) != 0 {
			t.Errorf("%d lanes and %d slots are left", len(c.out.lanes), len(c.slots))
		}
	})
}

func TestSendBlocksAtTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.publish = func(*wire.Publish) (*wire.Error, cut) { return nil, ignore }
		c := w.dial()
		var ends []error
		for range cap(c.slots) {
			c.Send(context.Background(), Message{Room: "r"}, func(_ Ack, err error) { ends = append(ends, err) })
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var rejected *Rejected
		if _, err := c.Publish(ctx, Message{Room: "r"}); !errors.As(err, &rejected) {
			t.Errorf("a send beyond the limit ended with %v", err)
		}
		c.Close()
		var unknown *Unknown
		if len(ends) != wire.InFlight || !errors.As(ends[0], &unknown) || !errors.Is(ends[0], ErrClosed) {
			t.Errorf("%d open sends ended with %v", len(ends), ends[0])
		}
		if _, err := c.Publish(context.Background(), Message{Room: "r"}); !errors.As(err, &rejected) {
			t.Errorf("a send after Close ended with %v", err)
		}
	})
}

// A node that takes sends but does not answer anything is left for another.
func TestSilentNodeIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.dial()
		w.mu.Lock()
		for s := range w.sessions {
			s.replies = newBlackHole()
		}
		w.down["a:1"] = true
		w.mu.Unlock()
		start := time.Now()
		if _, err := c.Publish(context.Background(), Message{Room: "r"}); err != nil {
			t.Error(err)
		}
		if node, _ := c.Node(); node != "b:1" || time.Since(start) > 6*time.Second {
			t.Errorf("after %v the node is %s", time.Since(start), node)
		}
		c.Close()
	})
}
