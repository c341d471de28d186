package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/starling-im/starling/bench/internal/load"
)

// A send sends a message to a room and calls done once with how that ended.
type send = load.Send

// measure keeps the senders busy and says when it counts, as edge-node bench
// does.
func measure(ctx context.Context, w workload, senders []send) (measured, error) {
	r, err := load.Run(ctx, load.Config{
		Senders: senders, Targets: w.Rooms, Window: w.Window,
		WarmUp: w.WarmUp, For: time.Duration(w.Seconds * float64(time.Second)),
		Say: func(p load.Progress) {
			switch {
			case p.Phase == load.Counting && p.Took == 0:
				fmt.Fprintln(os.Stderr, sayCounting)
			case p.Phase == load.Done:
				fmt.Fprintln(os.Stderr, sayDone)
			}
		},
	})
	if err != nil {
		return measured{}, err
	}
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return measured{
		PerS: float64(r.Messages) / r.Took.Seconds(), P50: ms(r.Times.Within(0.5)), P99: ms(r.Times.Within(0.99)),
		Messages: r.Messages, Seconds: r.Took.Seconds(),
	}, nil
}
