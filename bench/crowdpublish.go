package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/starling-im/starling/bench/internal/load"
)

// publish publishes in the phases of the workload.
func (c *crowd) publish(ctx context.Context) (all []phase, err error) {
	var rate float64 // of messages, at maximum
	for _, p := range c.work.phases() {
		result, err := c.phase(ctx, p.name, p.rate(rate))
		if err != nil {
			return nil, err
		}
		if rate == 0 {
			rate = float64(result.Messages) / result.Seconds
		}
		all = append(all, result)
	}
	return all, nil
}

// drainWithin is how long the last messages may take once no more are sent.
const drainWithin = 20 * time.Second

// phase publishes at a rate of messages per s, or as fast as they arrive if
// that is 0, and counts after a while.
func (c *crowd) phase(ctx context.Context, name string, rate float64) (phase, error) {
	lost := c.lost.Load()
	_ = c.times() // those before
	stop := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		err := c.feed(ctx, rate, stop)
		if err != nil {
			c.fail(err)
		}
		ended <- err
	}()
	p, err := c.count(ctx, name)
	close(stop)
	if err = errors.Join(err, <-ended); err == nil {
		err = c.drain(ctx)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return p, fmt.Errorf("%s: %w", name, err)
	}
	times := c.times()
	ms := func(share float64) float64 { return float64(times.Within(share)) / float64(time.Millisecond) }
	p.P50, p.P99, p.Lost = ms(0.5), ms(0.99), int(c.lost.Load()-lost)
	return p, nil
}

// count waits for the warm-up and then counts what is delivered meanwhile.
func (c *crowd) count(ctx context.Context, name string) (phase, error) {
	if err := pause(ctx, c.work.WarmUp); err != nil {
		return phase{}, err
	}
	fmt.Fprintln(os.Stderr, sayCounting)
	c.counting.Store(true)
	got, began := c.got(), time.Now()
	if err := pause(ctx, time.Duration(c.work.Seconds*float64(time.Second))); err != nil {
		return phase{}, err
	}
	deliveries, took := c.got()-got, time.Since(began)
	c.counting.Store(false)
	fmt.Fprintln(os.Stderr, sayDone)
	if deliveries == 0 {
		return phase{}, errors.New("nothing was delivered while it counted")
	}
	return phase{Name: name, Deliveries: deliveries, Seconds: took.Seconds(), Messages: deliveries / c.work.meanMembers()}, nil
}

func (c *crowd) got() (sum int) {
	for _, f := range c.followers {
		sum += int(f.got.Load())
	}
	return sum
}

// times takes from the followers what they have noted.
func (c *crowd) times() (all load.Times) {
	for _, f := range c.followers {
		f.mu.Lock()
		all.Add(&f.times)
		f.times = load.Times{}
		f.mu.Unlock()
	}
	return all
}

// pause waits, in vain once ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drain waits until every message has arrived.
func (c *crowd) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, drainWithin, errors.New("messages are missing in the end"))
	defer cancel()
	for i := range cap(c.tokens) {
		select {
		case <-c.tokens:
		case <-ctx.Done():
			return fmt.Errorf("%w: %d of %d have arrived", context.Cause(ctx), i, cap(c.tokens))
		}
	}
	for range cap(c.tokens) {
		c.tokens <- struct{}{}
	}
	return nil
}

// feed publishes until stop is closed.
func (c *crowd) feed(ctx context.Context, rate float64, stop <-chan struct{}) error {
	dice := rand.New(rand.NewPCG(3, 4)) // every system gets the same
	began := time.Now()
	for n := 0; ; n++ {
		if rate > 0 {
			due := time.Duration(float64(n) / rate * float64(time.Second))
			if err := c.await(stop, due-time.Since(began)); err != nil {
				return flushed(err, c)
			}
		}
		if err := c.token(ctx, stop); err != nil {
			return flushed(err, c)
		}
		room := dice.IntN(len(c.rooms))
		if err := c.send(room, c.work.size(dice)); err != nil {
			return err
		}
	}
}

// errStop is why feed ends.
var errStop = errors.New("stop")

// flushed flushes in the end; being told to stop is no error.
func flushed(err error, c *crowd) error {
	if errors.Is(err, errStop) {
		err = nil
	}
	return errors.Join(err, c.flush())
}

// await waits until a message is due.
func (c *crowd) await(stop <-chan struct{}, d time.Duration) error {
	if d <= 0 {
		select {
		case <-stop:
			return errStop
		default:
			return nil
		}
	}
	if err := c.flush(); err != nil {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-stop:
		return errStop
	}
}

// token waits until another message may be on its way.
func (c *crowd) token(ctx context.Context, stop <-chan struct{}) error {
	select {
	case <-stop:
		return errStop
	case <-c.tokens:
		return nil
	default:
	}
	if err := c.flush(); err != nil {
		return err
	}
	select {
	case <-c.tokens:
		return nil
	case <-stop:
		return errStop
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *crowd) flush() error {
	for _, p := range c.publishers {
		if err := p.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// send publishes the next message of a room, always over the same connection,
// so that there is an order to keep.
func (c *crowd) send(room, size int) error {
	r := c.rooms[room]
	r.sent++
	r.pending[r.sent%uint64(len(r.pending))].Store(r.members)
	s := stamp{room: room, number: r.sent, sent: time.Since(c.began)}
	return c.publishers[room%len(c.publishers)].Publish(r.sent*uint64(len(c.rooms))+uint64(room), 0, r.name, s.write(size))
}
