package simnet

import "time"

// Line is what lies between two hosts, one way. All their sockets share it. The
// zero value carries anything at once.
type Line struct {
	Rate  int // bytes per second, with the headers of UDP and IP; 0 = no bound
	Queue int // the bytes that may wait for it; packets beyond are lost
}

// headers are those of UDP and IPv4, in bytes.
const headers = 28

// enters puts a packet onto the line between two hosts. It reports false if the
// queue is full. It is called with the lock held.
func (n *Net) enters(way path, size int, now time.Time) bool {
	if n.opts.Line == nil {
		return true
	}
	line := n.opts.Line(way.from, way.to)
	if line.Rate == 0 {
		return true
	}
	waits := max(0, n.busy[way].Sub(now))
	if waits > took(line.Queue, line.Rate) {
		return false
	}
	n.busy[way] = now.Add(waits + took(size+headers, line.Rate))
	return true
}

// leaves is how long the packet that entered a line last takes to leave it. It is called
// with the lock held.
func (n *Net) leaves(way path) time.Duration {
	return max(0, time.Until(n.busy[way]))
}

func took(bytes, rate int) time.Duration {
	return time.Duration(float64(bytes) / float64(rate) * float64(time.Second))
}
