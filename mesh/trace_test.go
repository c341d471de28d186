package mesh

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNarrow(t)
		done := make(chan struct{})
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			began := time.Now()
			for {
				select {
				case <-done:
					return
				case <-time.After(20 * time.Millisecond):
				}
				l := n.a.table.to("b")
				l.pacer.mu.Lock()
				s := l.pacer.s
				l.pacer.mu.Unlock()
				st := l.conn.ConnectionStats()
				fmt.Printf("%6.0f rate %6.1f full %6.1f latest %5.1f min %5.1f cwnd %d lost %d\n", time.Since(began).Seconds()*1000, s.rate*8/1e6, s.full*8/1e6, st.LatestRTT.Seconds()*1000, st.MinRTT.Seconds()*1000, st.CongestionWindow, st.PacketsLost)
			}
		}()
		x := n.phase(5*time.Second, &asBulk)
		close(done)
		<-stopped
		x.log(t, "bulk")
	})
}
