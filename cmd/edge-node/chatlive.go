package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/starling-im/starling/client"
)

const (
	// liveWaiting bounds what waits to be shown of what is said live, in parts of 250 ms.
	liveWaiting = 16
	// liveEvery is how long lines of a script wait for each other: a node takes no more.
	liveEvery = 100 * time.Millisecond
	// liveLabel stands where stored messages have their seq.
	liveLabel = "live"
)

// overhear keeps what is said live for who takes it from the channel. It does not block:
// what finds no place there is left out.
func overhear(heard chan<- client.Live) func(client.Live) {
	missed := 0
	return func(is client.Live) {
		is.LeftOut += missed
		select {
		case heard <- is:
			missed = 0
		default:
			missed = is.LeftOut + len(is.Lines)
		}
	}
}

// leftOut says how many lines are not shown.
func leftOut(n int) string { return fmt.Sprintf("… and %d more", n) }

// exportedLine is a line that was said live, as JSON.
type exportedLine struct {
	Room string `json:"room"`
	Live bool   `json:"live"`
	User string `json:"user,omitempty"`
	Text string `json:"text,omitempty"`
	TS   int64  `json:"ts,omitempty"`
	// LeftOut is how many more were said.
	LeftOut int `json:"left_out,omitempty"`
}

// liveWriter returns what writes to w what is said live.
func (a *app) liveWriter(w io.Writer, room string) func(client.Live) error {
	write := func(l exportedLine, at time.Time, text string) error {
		_, err := fmt.Fprintf(w, "%s %6s  %s\n", at.Local().Format("15:04:05"), liveLabel, text)
		return err
	}
	if a.json {
		lines := json.NewEncoder(w)
		lines.SetEscapeHTML(false)
		write = func(l exportedLine, _ time.Time, _ string) error { return lines.Encode(l) }
	}
	return func(is client.Live) error {
		for _, l := range is.Lines {
			text := printable(l.User) + ": " + printable(l.Content)
			if err := write(exportedLine{Room: room, Live: true, User: l.User, Text: l.Content, TS: l.Time.UnixMilli()}, l.Time, text); err != nil {
				return err
			}
		}
		if is.LeftOut == 0 {
			return nil
		}
		return write(exportedLine{Room: room, Live: true, LeftOut: is.LeftOut}, time.Now(), leftOut(is.LeftOut))
	}
}

// listen returns the options of a follow by which lines that are said live are printed.
func (l *lineChat) listen(ctx context.Context) []client.FollowOption {
	if !l.live {
		return nil
	}
	heard := make(chan client.Live, liveWaiting)
	go func() {
		out := bufio.NewWriter(l.app.stdout)
		write := l.app.liveWriter(out, l.room)
		for {
			select {
			case is := <-heard:
				l.printing.Lock()
				err := write(is)
				if err == nil {
					err = out.Flush()
				}
				l.printing.Unlock()
				if err != nil {
					return // what prints events says so
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return []client.FollowOption{client.WithLive(overhear(heard)), client.WithSignals(func(is client.Signals) {
		if is.Unheard {
			fmt.Fprintln(l.app.stderr, "edge-node: "+unheard)
		}
	})}
}

// unheard is what a user is told whose node has no place for signals.
const unheard = "the node has no place for what is said live here: you hear nothing of it"

// sayLive says a line live, and waits until the node takes another.
func (l *lineChat) sayLive(ctx context.Context, number int, text string) {
	l.count(0)
	l.some = true
	if err := l.c.SayLive(l.room, text); err != nil {
		l.failed(number, err)
	}
	select {
	case <-time.After(liveEvery):
	case <-ctx.Done():
	}
}

// said waits until the node has read what was said live: it reads in order.
func (l *lineChat) said(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, quitWithin)
	defer cancel()
	_, _ = l.c.History(ctx, l.room, 0, 1)
}

// hearLive shows what was said live.
func (s *screen) hearLive(is client.Live) {
	for _, l := range is.Lines {
		b := said(client.Event{Room: s.room, User: l.User, Kind: client.KindMessage, Content: l.Content})
		b.label = fmt.Sprintf("%6s", liveLabel)
		s.text.hear(b)
	}
	if is.LeftOut > 0 {
		s.text.hear(&block{label: fmt.Sprintf("%6s", ""), text: leftOut(is.LeftOut), style: styleOther})
	}
}

// say says live what was typed. What cannot be said stays in the input.
func (s *screen) say(text string) {
	if err := s.live(text); err != nil {
		s.note = "not said: " + oneLine(err)
		return
	}
	s.input.Reset()
}
