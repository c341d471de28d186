package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

// echoWithin is how long chat waits, after its input has ended and everything
// was acked, to print its own last events.
const echoWithin = 10 * time.Second

// quitWithin is how long chat waits for what was sent after the user said /quit.
const quitWithin = 10 * time.Second

// errQuit ends sends that /quit has waited for in vain.
var errQuit = fmt.Errorf("not acknowledged within %v of /quit", quitWithin)

// printBatch bounds the events that are printed at once.
const printBatch = 256

// lateAfter is how long nothing may be acked before chat says that it waits.
const lateAfter = 2 * time.Second

// lineChat sends lines and prints events.
type lineChat struct {
	app  *app
	c    *client.Client
	room string
	live bool
	some bool // something was said live

	printing sync.Mutex // held while something is printed
	sent     sync.WaitGroup
	mu       sync.Mutex
	top      uint64 // the highest acked seq
	bad      int    // lines that could not be sent
	all      int
	open     int         // lines that are sent and not acked
	late     *time.Timer // runs while there are any; fires once
	slowed   bool        // it was said that lines wait
}

func (a *app) chatLines(ctx context.Context, c *client.Client, room string, live bool) error {
	chat := &lineChat{app: a, c: c, room: room, live: live}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	follow, err := c.FollowFromHead(ctx, room, chat.listen(ctx)...)
	if err != nil {
		return err
	}
	defer follow.Close()
	late := time.AfterFunc(lateAfter, chat.waits)
	defer late.Stop()
	late.Stop()
	chat.late = late
	printed := newMark(follow.Head())
	go func() { cancel(chat.print(ctx, follow, printed)) }()
	lines := readLines(ctx, a.stdin)
	quit := false
	for open := true; open; {
		select {
		case l, ok := <-lines:
			open = ok && chat.send(ctx, l)
			quit = ok && !open
		case <-ctx.Done():
			open = false
		}
	}
	chat.settle(ctx, quit, cancel)
	chat.mu.Lock()
	defer chat.mu.Unlock()
	if ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, echoWithin)
		defer cancel()
		printed.reach(wait, chat.top)
	}
	switch cause := context.Cause(ctx); {
	case chat.bad > 0:
		return chat.lost()
	case cause != nil && !isStop(cause):
		return cause
	}
	return nil
}

// lost says how many lines came to nothing. Those that are said live have no answer.
func (l *lineChat) lost() error {
	verb, what := "were", "acknowledged"
	if l.bad == 1 {
		verb = "was"
	}
	if l.live {
		what = "sent"
	}
	return fmt.Errorf("%d of %s %s not %s", l.bad, plural(l.all, "line"), verb, what)
}

// settle waits for the sends. A user who said /quit does not wait for ever: what is
// open by then is given up, and told as not acknowledged.
func (l *lineChat) settle(ctx context.Context, quit bool, giveUp context.CancelCauseFunc) {
	if quit {
		late := time.AfterFunc(quitWithin, func() { giveUp(errQuit) })
		defer late.Stop()
	}
	l.sent.Wait()
	if l.some {
		l.said(ctx)
	}
}

// print prints events until ctx ends.
func (l *lineChat) print(ctx context.Context, follow *client.Follow, printed *mark) error {
	out := bufio.NewWriter(l.app.stdout)
	write := l.app.eventWriter(out)
	for {
		events, err := follow.NextBatch(ctx, printBatch)
		if err != nil {
			return err
		}
		l.printing.Lock()
		for _, e := range events {
			if err = write(e); err != nil {
				break
			}
		}
		if err == nil {
			err = out.Flush()
		}
		l.printing.Unlock()
		if err != nil {
			return err
		}
		printed.set(events[len(events)-1].Seq)
	}
}

// send sends a line; false means that the user wants to go.
func (l *lineChat) send(ctx context.Context, in inputLine) bool {
	if in.err == nil && in.text == "" {
		return true
	}
	says := understand(in.text)
	if says.quit {
		return false
	}
	if in.err != nil {
		l.count(0)
		l.failed(in.number, in.err)
		return true
	}
	if l.live && says.kind == client.KindMessage {
		l.sayLive(ctx, in.number, says.text)
		return true
	}
	l.count(1)
	l.sent.Add(1)
	began := time.Now()
	l.c.Send(ctx, client.Message{Room: l.room, Kind: says.kind, Content: says.text}, func(ack client.Ack, err error) {
		defer l.sent.Done()
		l.settled(time.Since(began))
		if err != nil {
			l.failed(in.number, err)
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.top = max(l.top, ack.Seq)
	})
	return true
}

// count counts a line, and whether it is sent.
func (l *lineChat) count(sent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all++
	if l.open += sent; l.open == 1 && l.late != nil {
		l.late.Reset(lateAfter)
	}
}

// settled notes that a line that was sent has an answer, after some time. Where answers
// come, but long after their lines, it says so once: a node slows down who floods it.
func (l *lineChat) settled(after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if after > lateAfter && l.late != nil && !l.slowed {
		l.slowed = true
		fmt.Fprintf(l.app.stderr, "edge-node: slowed down: lines come faster than they are taken (with the limits of production 20 a second); the others wait\n")
	}
	switch {
	case l.late == nil:
	case l.open == 0:
		l.late.Stop()
	default:
		l.late.Reset(lateAfter)
	}
}

// waits says once that the mesh takes its time.
func (l *lineChat) waits() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == 0 || l.late == nil {
		return
	}
	l.late = nil
	fmt.Fprintf(l.app.stderr, "edge-node: waiting: %s not acknowledged yet\n", plural(l.open, "line"))
}

func (l *lineChat) failed(number int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad++
	var rejected *client.Rejected
	if errors.As(err, &rejected) {
		err = rejected.Err
	}
	fmt.Fprintf(l.app.stderr, "edge-node: line %d: %s\n", number, oneLine(err))
}

// inputLine is a line of standard input, or why it is none.
type inputLine struct {
	number int
	text   string
	err    error
}

// readLines reads lines until the end of input or of ctx.
func readLines(ctx context.Context, r io.Reader) <-chan inputLine {
	lines := make(chan inputLine)
	go func() {
		defer close(lines)
		in := bufio.NewReaderSize(r, wire.Content+1)
		for n := 1; ; n++ {
			text, err := readLine(in)
			if errors.Is(err, io.EOF) {
				return
			}
			select {
			case lines <- inputLine{n, text, err}:
			case <-ctx.Done():
				return
			}
			if err != nil && !errors.Is(err, client.ErrTooLarge) && !errors.Is(err, errNotText) {
				return
			}
		}
	}()
	return lines
}

var errNotText = errors.New("it is not UTF-8")

// readLine reads a line of at most the reader's buffer. A longer one is passed
// over and is an error, and so is one that is not text.
func readLine(in *bufio.Reader) (string, error) {
	b, err := in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = in.ReadSlice('\n')
		}
		return "", wire.TooLarge("line", 0, wire.Content)
	}
	if len(b) == 0 && err != nil {
		return "", err
	}
	if b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	if !utf8.Valid(b) {
		return "", errNotText
	}
	return string(b), nil
}

// mark is a seq that rises, and that can be waited for.
type mark struct {
	mu    sync.Mutex
	seq   uint64
	moved chan struct{}
}

func newMark(seq uint64) *mark { return &mark{seq: seq, moved: make(chan struct{})} }

func (m *mark) set(seq uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seq = seq
	close(m.moved)
	m.moved = make(chan struct{})
}

// reach waits until the mark is at seq or ctx ends.
func (m *mark) reach(ctx context.Context, seq uint64) {
	for {
		m.mu.Lock()
		at, moved := m.seq, m.moved
		m.mu.Unlock()
		if at >= seq {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}
