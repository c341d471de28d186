package client

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/starling-im/starling/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answering is a peer that answers each frame with what f returns, in order.
func answering(t *testing.T, s net.Conn, f func(*wire.Frame) []*wire.Frame) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.Close()
		r := wire.NewReader(s, wire.ClientFrame)
		for {
			in, err := r.Frame()
			if err != nil {
				return
			}
			var out []byte
			for _, a := range f(in) {
				out = wire.AppendMessage(out, a)
			}
			if _, err := s.Write(out); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { s.Close(); <-done })
}

func answer(id uint64, json string) *wire.Frame {
	return &wire.Frame{Id: id, Body: &wire.Frame_Answer{Answer: &wire.Answer{Json: []byte(json)}}}
}

func wireError(id uint64, code string) *wire.Frame {
	return &wire.Frame{Id: id, Body: &wire.Frame_Error{Error: wire.Errorf(code, "said the test")}}
}

func query(what string) *wire.Frame {
	return &wire.Frame{Body: &wire.Frame_Query{Query: &wire.Query{What: what}}}
}

func runSession(t *testing.T, cfg SessionConfig) (*Session, func() error) {
	t.Helper()
	s := NewSession(cfg)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- s.Run(ctx) }()
	var err error
	waited := false
	wait := func() error {
		if !waited {
			err, waited = <-ended, true
		}
		return err
	}
	t.Cleanup(func() { cancel(); _ = wait() })
	return s, wait
}

func TestSessionAnswersByID(t *testing.T) {
	near, far := net.Pipe()
	answering(t, far, func(f *wire.Frame) []*wire.Frame {
		if f.GetQuery().What == "nothing" {
			return []*wire.Frame{wireError(f.Id, wire.CodeNotFound)}
		}
		return []*wire.Frame{answer(f.Id, f.GetQuery().What)}
	})
	s, _ := runSession(t, SessionConfig{Commands: near})
	for _, what := range []string{"a", "b"} {
		f, err := s.Ask(context.Background(), query(what))
		if err != nil || string(f.GetAnswer().Json) != what {
			t.Errorf("Ask(%q) = %v, %v", what, f, err)
		}
	}
	if _, err := s.Ask(context.Background(), query("nothing")); wire.Code(err) != wire.CodeNotFound {
		t.Errorf("Ask(nothing): %v", err)
	}
}

func TestSessionEventsComeAfterFollowed(t *testing.T) {
	near, far := net.Pipe()
	answering(t, far, func(f *wire.Frame) []*wire.Frame {
		return []*wire.Frame{
			{Id: f.Id, Body: &wire.Frame_Followed{Followed: &wire.Followed{HeadSeq: 2}}},
			{Body: &wire.Frame_Events{Events: &wire.Events{Follow: f.Id, Events: []*wire.Event{{Seq: 1}, {Seq: 2}}}}},
			wireError(f.Id, wire.CodeTooFar),
		}
	})
	var order []string
	failed := make(chan uint64, 1)
	s, _ := runSession(t, SessionConfig{
		Commands: near,
		OnEvents: func(uint64, [][]byte) { order = append(order, "events") },
		OnError:  func(id uint64, _ *wire.Error) { failed <- id },
	})
	id := s.Call(&wire.Frame{Body: &wire.Frame_Follow{Follow: &wire.Follow{Room: "r"}}}, func(*wire.Frame, error) {
		order = append(order, "followed")
	})
	if got := <-failed; got != id {
		t.Errorf("the error is for %d, want %d", got, id)
	}
	if len(order) != 2 || order[0] != "followed" {
		t.Errorf("order is %v", order)
	}
}

func TestSessionEnd(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer []*wire.Frame
		want   error
	}{
		{"peer leaves", nil, io.EOF},
		{"peer says why", []*wire.Frame{wireError(0, wire.CodeSlowReader)}, &wire.Error{Code: wire.CodeSlowReader}},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := net.Pipe()
			asked := false
			answering(t, far, func(*wire.Frame) []*wire.Frame {
				if asked = true; test.answer == nil {
					far.Close()
				}
				return test.answer
			})
			s, wait := runSession(t, SessionConfig{Commands: near})
			_, err := s.Ask(context.Background(), query("x"))
			if wire.Code(err) != wire.CodeUnavailable || !asked {
				t.Errorf("the open call ended with %v", err)
			}
			if err := wait(); !errors.Is(err, test.want) {
				t.Errorf("Run = %v, want %v", err, test.want)
			}
			if _, err := s.Ask(context.Background(), query("x")); wire.Code(err) != wire.CodeUnavailable {
				t.Errorf("a later call ended with %v", err)
			}
		})
	}
}

func TestSessionNeverBlocks(t *testing.T) {
	near, far := net.Pipe() // nobody reads
	defer far.Close()
	s, _ := runSession(t, SessionConfig{Commands: near, MaxUnsent: 100})
	errs := make(chan error, 100)
	for range 100 {
		s.Call(query("0123456789"), func(_ *wire.Frame, err error) { errs <- err })
	}
	if err := <-errs; wire.Code(err) != wire.CodeOverloaded {
		t.Errorf("a call beyond the limit ended with %v", err)
	}
}

func TestSessionAskGivesUp(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	s, _ := runSession(t, SessionConfig{Commands: near})
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if _, err := s.Ask(ctx, query("x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ask = %v", err)
	}
	if len(s.open) != 0 {
		t.Errorf("%d calls are still open", len(s.open))
	}
}
