package consensus

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger gives Raft's messages to slog, one level lower than Raft names
// them: to lose a peer or an election is no error of this node.
type raftLogger struct {
	hclog.Logger // a null logger, for the methods that nobody calls
	log          *slog.Logger
}

func newRaftLogger(l *slog.Logger, group uint32) raftLogger {
	return raftLogger{hclog.NewNullLogger(), l.With("group", group)}
}

func (l raftLogger) Log(level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug - 4
	switch level {
	case hclog.Error:
		to = slog.LevelWarn
	case hclog.Warn:
		to = slog.LevelInfo
	case hclog.Info:
		to = slog.LevelDebug
	}
	if !l.log.Enabled(context.Background(), to) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	l.log.Log(context.Background(), to, "raft: "+msg, args...)
}

func (l raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l raftLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l raftLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l raftLogger) With(args ...any) hclog.Logger {
	return raftLogger{l.Logger, l.log.With(args...)}
}
func (l raftLogger) Named(string) hclog.Logger      { return l }
func (l raftLogger) ResetNamed(string) hclog.Logger { return l }

func (l raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.log.Handler(), slog.LevelDebug)
}
func (l raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return io.Discard }

// pebbleLogger gives Pebble's errors to slog and lets its fatal ones end the
// Host; they are those after which Pebble may have lost data.
type pebbleLogger struct {
	log  *slog.Logger
	fail func(error) error
}

func (l pebbleLogger) Infof(string, ...any) {}
func (l pebbleLogger) Errorf(format string, args ...any) {
	l.log.Error("pebble: " + fmt.Sprintf(format, args...))
}
func (l pebbleLogger) Fatalf(format string, args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok {
			_ = l.fail(fmt.Errorf("pebble: %w", err))
			return
		}
	}
	_ = l.fail(fmt.Errorf(format, args...))
}
