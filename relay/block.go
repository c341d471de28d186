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
	traced bool // an event is (wire.EventTrace)
}

// A chunk is a part of a block.
type chunk struct {
	run    []byte
	events int
	traced bool // an event may be
}

const (
	// blockMost bounds the memory of a block, but that of one large event, in bytes;
	// blockLeast is that of a room's first one. Each is twice as large as the one before.
	blockMost  = 16 << 10
	blockLeast = 512
	// blockEnd is what the place of an event's end takes, in bytes.
	blockEnd = 4
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
	b.traced = b.traced || wire.EventTrace(event) != nil
}

// next is the seq after the last event.
func (b *block) next() uint64 { return b.first + uint64(len(b.ends)) }

// bytes is the memory that the block holds.
func (b *block) bytes() int { return cap(b.run) + blockEnd*cap(b.ends) }

// has reports whether the event after a position is in the block.
func (b *block) has(after uint64) bool { return after+1 >= b.first && after+1 < b.next() }

// after returns the events after a position that the block has: as many as fit into max
// bytes, and at least one.
func (b *block) after(after uint64, max int) chunk {
	from := int(after + 1 - b.first)
	start := 0
	if from > 0 {
		start = int(b.ends[from-1])
	}
	if end := len(b.run); end-start <= max {
		return chunk{b.run[start:end:end], len(b.ends) - from, b.traced}
	}
	n := sort.Search(len(b.ends)-from, func(i int) bool { return int(b.ends[from+i])-start > max })
	if n == 0 {
		n = 1
	}
	end := int(b.ends[from+n-1])
	return chunk{b.run[start:end:end], n, b.traced}
}
