package main

import (
	"context"
	"sync"
	"time"
)

// What clients do whose server dies.
const (
	talksPerSecond = 20                     // messages, all the while
	talkBytes      = 128                    // of each
	tryAgainAfter  = 50 * time.Millisecond  // and half as much again, by chance
	backWithin     = 60 * time.Second       // all of them
	goesOnFor      = 1 * time.Second        // the talk, once all are back
	lastWithin     = 5 * time.Second        // the last messages
	askEvery       = 20 * time.Millisecond  // whether all are back
	resendAfter    = 100 * time.Millisecond // what the server refused
)

// reconnect kills the server and starts it again, while all clients follow a room
// in which one more speaks.
func (m *machine) reconnect(ctx context.Context, p *peer, w relayWork) ([]row, error) {
	began := time.Now()
	s, err := newSpeaker(p.target, began, 0, theRoom)
	if err != nil {
		return nil, err
	}
	clients, err := m.followers(ctx, p, w.Clients, began)
	if err != nil {
		return nil, err
	}
	defer clients.stop()
	if _, err := clients.tell(ctx, order{Do: doCount}); err != nil {
		return nil, err
	}
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work.Go(func() { s.keep(ctx) })
	back, err := comeBack(ctx, p, clients, s)
	if err != nil {
		return nil, err
	}
	// What has not come by then is lost.
	in, late := context.WithTimeout(ctx, lastWithin)
	defer late()
	sent, _ := s.last(in)
	_, _ = clients.tell(ctx, order{Do: doAwait, Number: sent, Within: lastWithin})
	said, err := clients.tell(ctx, order{Do: doTell})
	if err != nil {
		return nil, err
	}
	got := said.Bands[0]
	r := relayRow(p, phase{
		Name: kindReconnect, Messages: int(sent), Deliveries: got.Deliveries, Lost: int(sent)*w.Clients - got.Deliveries,
	})
	r.BackS, r.Repeated, r.Connections = &back, &got.Repeated, w.Clients
	return []row{r}, nil
}

// comeBack kills the server once everyone has had a message, and returns after how
// many seconds the last one was back. The speaker speaks for a while longer.
func comeBack(ctx context.Context, p *peer, clients throngs, s *speaker) (seconds float64, err error) {
	var work sync.WaitGroup
	defer work.Wait()
	talking, hush := context.WithCancel(ctx)
	defer hush()
	work.Go(func() { s.run(talking, talksPerSecond, talkBytes) })
	if _, err := clients.tell(ctx, order{Do: doAwait, Number: 1, Within: backWithin}); err != nil {
		return 0, err
	}
	killed := time.Now()
	kill(p.pid)
	if err := p.again(ctx); err != nil {
		return 0, err
	}
	back, err := clients.tell(ctx, order{Do: doBack, Within: backWithin})
	if err != nil {
		return 0, err
	}
	return time.Duration(back.Last - killed.UnixNano()).Seconds(), pause(ctx, goesOnFor)
}
