package main

import (
	"fmt"
	"time"
)

// A workload says what a turn sends. Its fields go to the process that sends.
type workload struct {
	Window   int // sends that are unanswered at any time
	Rooms    int
	Size     int // bytes of a message
	Sessions int // connections of the sender
	Groups   int // Raft groups; 0 = as many as the system has by itself
	Fsync    time.Duration
	Seconds  float64
	WarmUp   time.Duration
}

// base is durable-256.
func base() workload { return workload{Window: 256, Rooms: 200, Size: 128, Sessions: 3} }

// Name is the name of a workload in rows and tables.
func (w workload) Name() string {
	name := fmt.Sprintf("durable-%d", w.Window)
	if w.Groups > 0 {
		name += fmt.Sprintf("-groups-%d", w.Groups)
	}
	if w.Fsync > 0 {
		name += fmt.Sprintf("-fsync-%dms", w.Fsync.Milliseconds())
	}
	return name
}

// sweep are the workloads beside durable-256.
func sweep() (all []workload) {
	for _, window := range []int{1, 16, 4096} {
		w := base()
		w.Window = window
		all = append(all, w)
	}
	for _, groups := range []int{1, 8, 64, 256} {
		w := base()
		w.Groups = groups
		all = append(all, w)
	}
	for _, delay := range []time.Duration{time.Millisecond, 5 * time.Millisecond} {
		w := base()
		w.Fsync = delay
		all = append(all, w)
	}
	return all
}

// hasGroups are the systems that can be given a number of groups.
var hasGroups = map[string]bool{starlingName: true, raftName: true}
