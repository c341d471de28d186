package main

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

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
		l.settled()
		time.Sleep(lateAfter * 3 / 4)
		synctest.Wait()
		if early := said(); early != "" {
			t.Errorf("too early: %s", early)
		}
		time.Sleep(lateAfter)
		l.settled()
		l.count(1)
		time.Sleep(3 * lateAfter)
		synctest.Wait()
		if want := "edge-node: waiting: 2 lines not acknowledged yet\n"; said() != want {
			t.Errorf("said %q, want %q", said(), want)
		}
	})
}
