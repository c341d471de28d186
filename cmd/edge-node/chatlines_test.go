package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// After /quit what was sent is waited for, but not for ever; the end of input waits
// as long as it takes.
func TestQuitWaitsForAcks(t *testing.T) {
	for _, tt := range []struct {
		quit  bool
		acked time.Duration // 0 = when it is given up
		ends  time.Duration
	}{
		{true, quitWithin / 2, quitWithin / 2}, {true, 0, quitWithin}, {false, 3 * quitWithin, 3 * quitWithin},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := &lineChat{}
			l.sent.Add(1)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			context.AfterFunc(ctx, l.sent.Done)
			if tt.acked > 0 {
				time.AfterFunc(tt.acked, func() { cancel(nil) })
			}
			began := time.Now()
			l.settle(ctx, tt.quit, cancel)
			if took := time.Since(began); took != tt.ends || (context.Cause(ctx) == errQuit) != (tt.acked == 0) {
				t.Errorf("%+v: it ends after %v with %v", tt, took, context.Cause(ctx))
			}
		})
	}
}

func TestChatSaysOnceThatItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := &lineChat{app: &app{stderr: &out}}
		said := func() string {
			l.mu.Lock()
			defer l.mu.Unlock()
			return out.String()
		}
		l.late = time.AfterFunc(lateAfter, l.waits)
		l.late.Stop()
		l.count(0) // a line that is not sent is waited for by nobody
		time.Sleep(2 * lateAfter)
		for range 3 {
			l.count(1)
		}
		time.Sleep(lateAfter / 2)
		l.settled(0)
		time.Sleep(lateAfter * 3 / 4)
		synctest.Wait()
		if early := said(); early != "" {
			t.Errorf("too early: %s", early)
		}
		time.Sleep(lateAfter)
		l.settled(0)
		l.count(1)
		time.Sleep(3 * lateAfter)
		synctest.Wait()
		if want := "edge-node: waiting: 2 lines not acknowledged yet\n"; said() != want {
			t.Errorf("said %q, want %q", said(), want)
		}
	})
}

// Who says more than a node takes is told once; that it takes a moment now and then is no news.
func TestChatSaysOnceThatItIsSlowedDown(t *testing.T) {
	var out bytes.Buffer
	l := &lineChat{app: &app{stderr: &out}, late: time.NewTimer(time.Hour)}
	defer l.late.Stop()
	l.settled(lateAfter)
	if out.Len() > 0 {
		t.Errorf("too early: %s", out.String())
	}
	for range 3 {
		l.settled(lateAfter + 1)
	}
	if strings.Count(out.String(), "edge-node: slowed down: ") != 1 {
		t.Errorf("said %q", out.String())
	}
}

func TestChatSaysWhatIsLost(t *testing.T) {
	for want, l := range map[string]*lineChat{
		"1 of 1 line was not acknowledged":     {bad: 1, all: 1},
		"30 of 30 lines were not acknowledged": {bad: 30, all: 30},
		"30 of 30 lines were not sent":         {bad: 30, all: 30, live: true},
	} {
		if err := l.lost(); err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
