package main

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

func TestChatSaysOnceThatItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		l := &lineChat{app: &app{stderr: &said}}
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
		if said.Len() > 0 {
			t.Errorf("too early: %s", said.String())
		}
		time.Sleep(lateAfter)
		l.settled()
		l.count(1)
		time.Sleep(3 * lateAfter)
		synctest.Wait()
		if want := "edge-node: waiting: 2 lines not acknowledged yet\n"; said.String() != want {
			t.Errorf("said %q, want %q", said.String(), want)
		}
	})
}
