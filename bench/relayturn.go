package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/starling-im/starling/bench/internal/talk"
)

// relayTurn measures a system once; a workload of several phases has as many rows.
func (m *machine) relayTurn(ctx context.Context, name, system string, w relayWork) ([]row, error) {
	dir := filepath.Join(m.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	p, err := peers[system](ctx, m, dir)
	if err != nil {
		return nil, err
	}
	defer func() { p.stop() }()
	switch w.Kind {
	case kindIdle:
		return m.idle(ctx, p, w)
	case kindReconnect:
		return m.reconnect(ctx, p, w)
	}
	return m.publish(ctx, p, w)
}

// publish measures phases in which a crowd publishes.
func (m *machine) publish(ctx context.Context, p *peer, w relayWork) ([]row, error) {
	var servers, clients []*stopwatch
	said, err := m.crowd(ctx, p, w, func(begins bool, pid int) {
		if begins {
			servers = append(servers, &stopwatch{pids: append([]int{p.pid}, p.morePIDs...)})
			clients = append(clients, &stopwatch{pids: []int{pid}})
		}
		servers[len(servers)-1].take(begins)
		clients[len(clients)-1].take(begins)
	})
	if err == nil && len(said) != len(servers) {
		err = fmt.Errorf("the clients counted %d times and tell of %d", len(servers), len(said))
	}
	if err != nil {
		return nil, err
	}
	var rows []row
	for i, ph := range said {
		r := relayRow(p, ph)
		r.CPUPerM = perMillion(servers[i], ph.Deliveries)
		r.ClientCPUPerM = perMillion(clients[i], ph.Deliveries)
		rows = append(rows, r)
	}
	return rows, nil
}

func relayRow(p *peer, ph phase) row {
	r := row{Workload: ph.Name, Limits: p.limits, Messages: ph.Messages, Seconds: ph.Seconds, P50: ph.P50, P99: ph.P99}
	r.Deliveries, r.Lost = ph.Deliveries, &ph.Lost
	if ph.Seconds > 0 {
		r.PerS = float64(ph.Messages) / ph.Seconds
		r.DeliveriesPerS = float64(ph.Deliveries) / ph.Seconds
	}
	return r
}

// perMillion is in s per million deliveries; nil = not known.
func perMillion(w *stopwatch, deliveries int) *float64 {
	per := w.per100k(deliveries)
	if per != nil {
		*per *= 10
	}
	return per
}

// idle measures the memory of quiet connections.
func (m *machine) idle(ctx context.Context, p *peer, w relayWork) ([]row, error) {
	// What the first few make a server load and allocate is not theirs.
	few, err := m.followers(ctx, p, min(w.Clients, fewClients), time.Now())
	if err != nil {
		return nil, err
	}
	few.stop()
	before, err := settle(ctx, p, w.Seconds)
	if err != nil {
		return nil, err
	}
	all, err := m.followers(ctx, p, w.Clients, time.Now())
	if err != nil {
		return nil, err
	}
	defer all.stop()
	after, err := settle(ctx, p, w.Seconds)
	if err != nil {
		return nil, err
	}
	said, err := all.tell(ctx, order{Do: doTell})
	if err != nil {
		return nil, err
	}
	if n := said.Bands[0].Ends; n > 0 {
		return nil, fmt.Errorf("%d connections ended", n)
	}
	r := row{Workload: kindIdle, Limits: p.limits, Seconds: w.Seconds}
	r.Connections = w.Clients
	per := (after.residentKiB - before.residentKiB) / float64(w.Clients)
	r.KiBPerConn = &per
	if p.heap != nil {
		heap := (after.heap - before.heap) / 1024 / float64(w.Clients)
		r.HeapKiBPerConn = &heap
	}
	return []row{r}, nil
}

// followers starts clients that all follow one room, and returns once they do.
func (m *machine) followers(ctx context.Context, p *peer, n int, began time.Time) (throngs, error) {
	all, err := startThrongs(m.log, 1, false, false, throngSpec{
		Targets: []talk.Target{p.target}, Began: began.UnixNano(), Rooms: []string{theRoom},
		Bands: []band{{Name: "the clients", Rooms: []int{0}, Clients: n, Homes: []int{0}}},
	})
	if err == nil {
		_, err = all.tell(ctx, order{Do: doJoin, Within: comeWithin})
	}
	if err != nil {
		all.stop()
		return nil, err
	}
	return all, nil
}

// theRoom is where all are.
const theRoom = "room0"

// fewClients come and go before a server's memory is measured.
const fewClients = 50

// memory is what a server has.
type memory struct{ residentKiB, heap float64 }

// settle waits, lets the server free what it does not use if it can be asked to,
// and reads how much it has. To wait for a node's own collection takes memory,
// and so comes after that.
func settle(ctx context.Context, p *peer, seconds float64) (got memory, err error) {
	if err := pause(ctx, time.Duration(seconds*float64(time.Second))); err != nil {
		return got, err
	}
	if p.collect != nil && p.heap == nil {
		if err := p.collect(ctx); err != nil {
			return got, err
		}
	}
	if got.residentKiB, err = residentKiB(p.pid); err != nil || p.heap == nil {
		return got, err
	}
	if err := p.collect(ctx); err != nil {
		return got, err
	}
	got.heap, err = p.heap(ctx)
	return got, err
}

// crowd runs the clients of a turn, and calls counts when they begin to count
// and when they end.
func (m *machine) crowd(ctx context.Context, p *peer, w relayWork, counts func(begins bool, pid int)) (said []phase, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &sender{cmd: exec.Command(self, crowdPart), spec: crowdSpec{append([]talk.Target{p.target}, p.more...), w}}
	c.cmd.Env = partEnv()
	limit := 3 * (w.WarmUp + time.Duration(w.Seconds*float64(time.Second)))
	err = c.run(ctx, limit, &said, func(begins bool) { counts(begins, c.cmd.Process.Pid) })
	return said, err
}
