package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// memoryEvery is how often a node looks whether it has become quiet: since the look
	// before it has allocated at most quietLeast, or a quarter of what is in use.
	memoryEvery = 10 * time.Second
	quietLeast  = 8 << 20
	// slackLeast is what is worth giving back, in bytes.
	slackLeast = 8 << 20
)

// memory is what the runtime says of the heap, in bytes.
type memory struct{ allocated, live, held uint64 }

// readMemory reads what was allocated so far, what is in use by objects, and what the heap
// holds of the system's memory.
func readMemory() memory {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
	}
	metrics.Read(s)
	return memory{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64() + s[3].Value.Uint64() + s[4].Value.Uint64()}
}

// slack reports whether a process that was quiet since before holds much that it does not use.
func (m memory) slack(before memory) bool {
	return m.allocated-before.allocated < max(quietLeast, m.live/4) && m.held > m.live+max(slackLeast, m.live/4)
}

// giveBack returns memory to the system whenever the node has become quiet, as after a
// storm of clients: by itself the runtime keeps twice of what is in use, for minutes.
func giveBack(ctx context.Context) {
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	var left uint64 // what was held when memory was last given back: some cannot be
	for before := readMemory(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := readMemory()
		if now.slack(before) && now.held > left+slackLeast/2 {
			debug.FreeOSMemory()
			now = readMemory()
			left = now.held
		}
		before = now
	}
}
