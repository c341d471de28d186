package oracle

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// An append that succeeds returns its seq, and a read the length of the log.
// So the order in which they take effect, if there is one, is known: append 1,
// reads of head 1, append 2 … What is left to find out is whether each can
// have taken effect between its call and its return, in that order. It can if
// and only if none returns before one that precedes it is called.

// step is an operation in that order.
type step struct {
	place     uint64 // 2·seq of an append, 2·head + 1 of a read
	call, ret int64
	what      string
}

func (j *judge) realTime(r *room) {
	steps, unseen := r.steps()
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.place, b.place) })
	var latest step // by call, of the steps before
	latest.call = math.MinInt64
	for i := 0; i < len(steps); {
		k := i // reads of one head precede each other in no order
		for ; k < len(steps) && steps[k].place == steps[i].place; k++ {
			switch s := steps[k]; {
			case s.ret < s.call:
				j.against("room %s: %s was seen %d ns before it was sent", r.name, s.what, s.call-s.ret)
			case s.ret < latest.call:
				j.against("room %s: %s was over before %s began, %d ns later", r.name, s.what, latest.what, latest.call-s.ret)
			}
		}
		for ; i < k; i++ {
			if steps[i].call > latest.call {
				latest = steps[i]
			}
		}
	}
	j.holes(r, steps, unseen)
}

// holes finds seqs below the last known one that nobody saw: sends whose end
// is unknown may be there, and then nothing is known about their order.
func (j *judge) holes(r *room, steps []step, unseen int) {
	next := uint64(1)
	for _, s := range steps {
		if s.place%2 == 0 && s.place/2 == next {
			next++
		} else if s.place/2 >= next {
			if unseen > 0 {
				j.say(true, "room %s: nobody saw seq %d, and the end of %d sends is unknown", r.name, next, unseen)
			}
			return
		}
	}
}

// steps returns a room's appends whose seq is known and its linearizable
// reads, and the number of sends that may have taken effect unseen.
func (r *room) steps() (steps []step, unseen int) {
	at := map[uint64]int64{} // when a seq was seen first
	ids := map[uint64]string{}
	for _, v := range r.views {
		for _, e := range v.seen {
			ids[e.Seq] = e.ID
			if t, ok := at[e.Seq]; e.At > 0 && (!ok || e.At < t) {
				at[e.Seq] = e.At
			}
		}
	}
	appends := map[uint64]step{}
	for _, s := range r.sends {
		seq := s.Seq
		if s.Outcome == Unknown {
			if seq = r.seqs[own{s.User, s.ID}]; seq == 0 {
				unseen++
			}
		}
		if s.Outcome == Rejected || seq == 0 {
			continue
		}
		x, ok := appends[seq]
		if !ok {
			x = step{2 * seq, s.Call, math.MaxInt64, fmt.Sprintf("%s (seq %d)", s.ID, seq)}
			if t, ok := at[seq]; ok {
				x.ret = t
			}
		}
		x.call = min(x.call, s.Call)
		if s.Outcome == Acked && s.Return > 0 {
			x.ret = min(x.ret, s.Return)
		}
		appends[seq] = x
	}
	for seq, id := range ids { // of senders that were not recorded
		if _, ok := appends[seq]; !ok {
			appends[seq] = step{2 * seq, math.MinInt64, math.MaxInt64, id}
		}
	}
	for _, x := range appends {
		steps = append(steps, x)
	}
	for _, read := range r.reads {
		if read.Linearizable {
			steps = append(steps, step{2*read.Head + 1, read.Call, read.Return, fmt.Sprintf("a read of %s (head %d)", read.Observer, read.Head)})
		}
	}
	return steps, unseen
}
