package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/starling-im/starling/bench/internal/talk"
)

// The systems of the workloads beside durable, in the order of tables.
const (
	starlingWSName   = "starling-ws"
	starlingQUICName = "starling-quic"
	natsName         = "nats"
	centrifugeName   = "centrifuge"
	mochiName        = "mochi"
	mosquittoName    = "mosquitto"
	ejabberdName     = "ejabberd"
)

func peerNames() []string {
	return []string{starlingWSName, starlingQUICName, natsName, centrifugeName, mochiName, mosquittoName, ejabberdName}
}

// A peer is a system's one server, while a turn lasts.
type peer struct {
	target talk.Target
	limits string // that a row names
	pid    int
	// Of a system of several nodes, the others: where they are, and their processes.
	more     []talk.Target
	morePIDs []int
	// collect makes the server free what it does not use, or waits until it has
	// collected its garbage by itself; nil = one can do neither.
	collect func(context.Context) error
	// heap is what the server says that it has in use, in bytes, once it has
	// collected its garbage by itself; nil = it does not say.
	heap func(context.Context) (float64, error)
	// again starts the server anew, at the same address, after it was killed.
	again func(context.Context) error
	stop  func()
}

// peers start servers in an empty folder.
var peers = map[string]func(ctx context.Context, m *machine, dir string) (*peer, error){
	starlingWSName:   startOneStarling(talk.StarlingWS),
	starlingQUICName: startOneStarling(talk.StarlingQUIC),
	natsName:         startLibrary(natsName, talk.NATS, "as it comes: 64 MiB unsent per client"),
	centrifugeName:   startLibrary(centrifugeName, talk.Centrifuge, "as it comes: 1 MiB unsent per client"),
	mochiName:        startLibrary(mochiName, talk.MQTT, "as it comes: 8,192 messages unsent per client, then they are dropped"),
	mosquittoName:    startMosquitto,
	ejabberdName:     startEjabberd,
}

// errMissing is why a system cannot be measured on this machine.
var errMissing = errors.New("it is not installed")

// startLibrary returns what starts a server that is a part of the bench.
func startLibrary(name, protocol, limits string) func(context.Context, *machine, string) (*peer, error) {
	return func(ctx context.Context, m *machine, dir string) (*peer, error) {
		ca, err := writeCertificate(dir)
		if err != nil {
			return nil, err
		}
		addrs, err := freeAddrs(1)
		if err != nil {
			return nil, err
		}
		spec := serverSpec{Dir: dir, Addrs: addrs}
		p := &peer{target: talk.Target{Protocol: protocol, Addr: addrs[0], CA: ca, Name: serverName}, limits: limits, stop: func() {}}
		p.again = func(ctx context.Context) error {
			p.stop() // its process is dead, and now gone
			up, err := startServers(ctx, m.log, name, 0, []serverSpec{spec})
			if err != nil {
				return err
			}
			p.pid, p.collect, p.stop = up[0].pid, up[0].collect, func() { stopServers(up) }
			return nil
		}
		return p, p.again(ctx)
	}
}

// residentKiB is the memory of a process, of which only Linux tells.
func residentKiB(pid int) (kib float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, resident int
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0, err
	}
	return float64(resident) * float64(os.Getpagesize()) / 1024, nil
}
