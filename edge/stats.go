package edge

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/starling-im/starling/wire"
)

// What carries a client's connection.
type transport int

const (
	overQUIC transport = iota
	overWebSocket
	transports
)

// Stats are a door's figures since it was made.
type Stats struct {
	// QUIC and WebSocket are the connections that are open now.
	QUIC, WebSocket int64
	// Resumed are the sessions that went on with an earlier one.
	Resumed uint64
	// Refused are the clients that were not let in, Ended the sessions that the node
	// ended or that broke a rule, by code. A code that is not expected counts as internal.
	Refused, Ended map[string]uint64
}

// stats are what a door counts.
type stats struct {
	open    [transports]atomic.Int64
	resumed atomic.Uint64
	refused codes
	ended   codes
}

func newStats() *stats {
	return &stats{
		refused: newCodes(wire.CodeOverloaded, wire.CodeTooMany, wire.CodeShuttingDown, wire.CodeUnauthenticated, wire.CodeTokenExpired,
			wire.CodeBadRequest, wire.CodeTooLarge, wire.CodeProtocol, wire.CodeInternal),
		ended: newCodes(wire.CodeSlowReader, wire.CodeShuttingDown, wire.CodeTokenExpired, wire.CodeTooLarge, wire.CodeProtocol,
			wire.CodeBadRequest, wire.CodeForbidden, wire.CodeConflict, wire.CodeInternal),
	}
}

// Stats returns the door's figures of now.
func (d *Door) Stats() Stats {
	return Stats{
		QUIC: d.stats.open[overQUIC].Load(), WebSocket: d.stats.open[overWebSocket].Load(),
		Resumed: d.stats.resumed.Load(), Refused: d.stats.refused.now(), Ended: d.stats.ended.now(),
	}
}

// codes counts by the code of an error, of a few.
type codes struct {
	mu sync.Mutex
	of map[string]uint64
}

func newCodes(expected ...string) codes {
	of := make(map[string]uint64)
	for _, code := range expected {
		of[code] = 0
	}
	return codes{of: of}
}

func (c *codes) count(code string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.of[code]; !ok {
		code = wire.CodeInternal
	}
	c.of[code]++
}

func (c *codes) now() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.of)
}
