package relay

import (
	"sort"

	"github.com/starling-im/starling/wire"
)

// A block is a part of a room's tail: consecutive events, one after the other in one
// piece of memory as frames carry them (wire.Run). Bytes that were written never change,
// so that readers keep slices of them without a lock or a copy.
type block struct {
	first  uint64 // the seq of the first event
	run    []byte // grows within its capacity
	ends   []int32
	traced [][]byte // those events that are (wire.EventTrace), which alias run
}

// A chunk is a part of a block.
type chunk struct {
	run    []byte
	events int
	traced [][]byte // those events that are, which are shared
}

const (
	// blockMost bounds the memory of a block, but that of one large event, in bytes;
	// blockLeast is that of a room's first one. Each is twice as large as the one before.
	blockMost  = 16 << 10
	blockLeast = 512
	// blockEnd is what the place of an event's end takes, in bytes, and blockTraced that
	// of one which is traced.
	blockEnd, blockTraced = 4, 24
)

// newBlock makes one for an event with the seq first; before is the size of the last block,
// and most bounds it, but that of one large event.
func newBlock(first uint64, event []byte, before, most int) *block {
	size := max(min(max(blockLeast, 2*before), blockMost, most), wire.RunSize(len(event)))
	return &block{first: first, run: make([]byte, 0, size)}
}

// blockOf makes one of events that come after each other.
func blockOf(first uint64, events [][]byte) *block {
	size := 0
	for _, e := range events {
		size += wire.RunSize(len(e))
	}
	b := &block{first: first, run: make([]byte, 0, size), ends: make([]int32, 0, len(events))}
	for _, e := range events {
		b.add(e)
	}
	return b
}

// fits reports whether an event can be added.
func (b *block) fits(event []byte) bool { return len(b.run)+wire.RunSize(len(event)) <= cap(b.run) }

func (b *block) add(event []byte) {
	b.run = wire.AppendToRun(b.run, event)
	b.ends = append(b.ends, int32(len(b.run)))
	if wire.EventTrace(event) != nil {
		b.traced = append(b.traced, b.run[len(b.run)-len(event):])
	}
}

// next is the seq after the last event.
func (b *block) next() uint64 { return b.first + uint64(len(b.ends)) }

// bytes is the memory that the block holds.
func (b *block) bytes() int { return cap(b.run) + blockEnd*cap(b.ends) + blockTraced*cap(b.traced) }

// has reports whether the event after a position is in the block.
func (b *block) has(after uint64) bool { return after+1 >= b.first && after+1 < b.next() }

// after returns the events after a position that the block has: as many as fit into most
// bytes, and at least one.
func (b *block) after(after uint64, most int) chunk {
	from := int(after + 1 - b.first)
	start := 0
	if from > 0 {
		start = int(b.ends[from-1])
	}
	n, end := len(b.ends)-from, len(b.run)
	if end-start > most {
		n = max(1, sort.Search(n, func(i int) bool { return int(b.ends[from+i])-start > most }))
		end = int(b.ends[from+n-1])
	}
	return chunk{b.run[start:end:end], n, b.tracedOf(from, n)}
}

// tracedOf returns those of n events from one on that are traced.
func (b *block) tracedOf(from, n int) [][]byte {
	if len(b.traced) == 0 {
		return nil
	}
	before := func(i int) int {
		return sort.Search(len(b.traced), func(k int) bool { return wire.EventSeq(b.traced[k]) >= b.first+uint64(i) })
	}
	i, j := before(from), before(from+n)
	return b.traced[i:j:j]
}
