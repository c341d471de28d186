package edge

import (
	"context"
	"runtime"
	"testing"

	"github.com/gobwas/ws"
)

// TestQuietWebSocketsAreSmall has many come in, say something and be quiet. Each keeps 4 KiB
// of stack, however deep it has been, and little more of heap than crypto/tls has.
func TestQuietWebSocketsAreSmall(t *testing.T) {
	if underRace {
		t.Log("the race detector makes stacks deeper")
		return
	}
	const many, stackMost, heapMost = 200, 6 << 10, 24 << 10 // of heap with the clients' end
	h := openTCP(t, func(ctx context.Context, c Client) error {
		deep(0)
		return echo(ctx, c)
	})
	h.enter() // what the first one has made is not theirs
	stackBefore, heapBefore := collected()
	guests := make([]*guest, many)
	for i := range guests {
		guests[i] = h.enter(binary(say(2, "hi")), frame(ws.OpPing, true, nil))
		guests[i].hear()
		guests[i].heard()
	}
	var stack, heap int
	for range 20 { // one collection halves a stack, if its goroutine waits already
		s, h := collected()
		stack, heap = (s-stackBefore)/many, (h-heapBefore)/many
		if stack <= stackMost && heap <= heapMost {
			break
		}
	}
	runtime.KeepAlive(guests)
	t.Logf("a quiet client has %d bytes of stack and, with its own end, %d of heap", stack, heap)
	if stack > stackMost || heap > heapMost {
		t.Errorf("at most %d and %d are expected", stackMost, heapMost)
	}
}

// deep takes more stack than who is quiet is to keep.
//
//go:noinline
func deep(i byte) byte {
	var all [4 << 10]byte
	all[i] = i
	return all[len(all)-1-int(i)]
}

// collected returns how many bytes stacks and heap have without garbage.
func collected() (stack, heap int) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.StackInuse), int(m.HeapAlloc)
}
