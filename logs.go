package starling

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// logUnread is how many bytes of the log wait for one who follows it; what comes
	// then is lost to them, and they are told.
	logUnread = 1 << 20
	// logReaders is how many may follow the log of a node at a time.
	logReaders = 16
	// logStall is how long one of them may take nothing.
	logStall = 10 * time.Second
)

// nobody is the level from which on nobody listens.
const nobody = math.MaxInt64

// logs hands what a node logs to those who follow it, as lines of JSON, besides where
// it goes anyhow.
type logs struct {
	least   atomic.Int64 // the lowest level that somebody follows
	mu      sync.Mutex
	level   slog.Level // of the record that Write gets a line of
	readers []*logReader
}

func newLogs() *logs {
	l := new(logs)
	l.least.Store(nobody)
	return l
}

// handler logs to next and to those who follow.
func (l *logs) handler(next slog.Handler) slog.Handler {
	return followed{l, next, slog.NewJSONHandler(l, &slog.HandlerOptions{Level: slog.Level(math.MinInt)})}
}

// Write gives a line to all who follow its level. The JSON handler calls it, once for
// each record, while tell holds mu.
func (l *logs) Write(line []byte) (int, error) {
	for _, r := range l.readers {
		if l.level >= r.level {
			r.put(line)
		}
	}
	return len(line), nil
}

func (l *logs) tell(ctx context.Context, r slog.Record, lines slog.Handler) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.level = r.Level
	_ = lines.Handle(ctx, r)
}

// follow adds a reader of what is logged from a level on, unless there are too many.
func (l *logs) follow(level slog.Level) (*logReader, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.readers) >= logReaders {
		return nil, false
	}
	r := &logReader{level: level, more: make(chan struct{}, 1)}
	l.readers = append(l.readers, r)
	l.weigh()
	return r, true
}

func (l *logs) unfollow(r *logReader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.readers = slices.DeleteFunc(l.readers, func(x *logReader) bool { return x == r })
	l.weigh()
}

// weigh finds the lowest level that somebody follows. mu is held.
func (l *logs) weigh() {
	least := int64(nobody)
	for _, r := range l.readers {
		least = min(least, int64(r.level))
	}
	l.least.Store(least)
}

func (l *logs) follows(level slog.Level) bool { return int64(level) >= l.least.Load() }

// followed is a handler whose records go to next, and to those who follow a log.
type followed struct {
	logs        *logs
	next, lines slog.Handler
}

func (f followed) Enabled(ctx context.Context, level slog.Level) bool {
	return f.logs.follows(level) || f.next.Enabled(ctx, level)
}

func (f followed) Handle(ctx context.Context, r slog.Record) error {
	if f.logs.follows(r.Level) {
		f.logs.tell(ctx, r, f.lines)
	}
	if !f.next.Enabled(ctx, r.Level) {
		return nil
	}
	return f.next.Handle(ctx, r)
}

func (f followed) WithAttrs(attrs []slog.Attr) slog.Handler {
	return followed{f.logs, f.next.WithAttrs(attrs), f.lines.WithAttrs(attrs)}
}

func (f followed) WithGroup(name string) slog.Handler {
	return followed{f.logs, f.next.WithGroup(name), f.lines.WithGroup(name)}
}

// A logReader is what waits for one who follows a log.
type logReader struct {
	level slog.Level
	more  chan struct{} // gets one when there is something to take
	mu    sync.Mutex
	lines []byte
	lost  int // lines that came behind lines
}

func (r *logReader) put(line []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost > 0 || len(r.lines)+len(line) > logUnread {
		r.lost++ // and all behind it until take: a gap has one place
	} else {
		r.lines = append(r.lines, line...)
	}
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// take returns the lines that have come, and says behind them how many were lost.
func (r *logReader) take() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	if r.lost > 0 {
		lines = fmt.Appendf(lines, `{"time":%q,"level":"WARN","msg":"%d lines were lost","lost":%d}`+"\n", time.Now().Format(time.RFC3339Nano), r.lost, r.lost)
	}
	r.lines, r.lost = nil, 0
	return lines
}

// serveLog answers GET /v1/log?level=LEVEL with lines of JSON, as they are logged,
// until the asker or the node goes.
func (n *Node) serveLog(w http.ResponseWriter, q *http.Request) {
	level := slog.LevelInfo
	if text := q.FormValue("level"); text != "" && level.UnmarshalText([]byte(text)) != nil {
		http.Error(w, fmt.Sprintf("the level is %q, not debug, info, warn or error", text), http.StatusBadRequest)
		return
	}
	r, ok := n.logs.follow(level)
	if !ok {
		http.Error(w, fmt.Sprintf("%d follow the log already, and more may not", logReaders), http.StatusServiceUnavailable)
		return
	}
	defer n.logs.unfollow(r)
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Time{}) // that of the server is for questions that end
	w.Header().Set("Content-Type", "application/jsonl")
	for {
		_ = out.SetWriteDeadline(time.Now().Add(logStall))
		if _, err := w.Write(r.take()); err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-r.more:
		case <-q.Context().Done():
			return
		}
	}
}
