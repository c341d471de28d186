package starling

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Who follows a log gets what is logged from their level on, whatever the node itself
// logs, and nobody costs nothing.
func TestLogsReachWhoFollows(t *testing.T) {
	l := newLogs()
	var own bytes.Buffer
	log := slog.New(l.handler(slog.NewTextHandler(&own, &slog.HandlerOptions{Level: slog.LevelWarn}))).With("node", "a")
	if log.Enabled(t.Context(), slog.LevelInfo) {
		t.Error("nobody follows, and the log makes lines of the level info")
	}
	debug, _ := l.follow(slog.LevelDebug)
	warn, _ := l.follow(slog.LevelWarn)
	log.Debug("one", "n", 1)
	log.WithGroup("g").Warn("two", "n", 2)
	l.unfollow(debug)
	if log.Enabled(t.Context(), slog.LevelInfo) || !log.Enabled(t.Context(), slog.LevelWarn) {
		t.Error("the level is not that of those who are left")
	}
	l.unfollow(warn)
	log.Error("three")
	for _, c := range []struct{ who, got, want string }{
		{"debug", string(debug.take()), `"msg":"one","node":"a","n":1` + "\n" + `"msg":"two","node":"a","g":{"n":2}` + "\n"},
		{"warn", string(warn.take()), `"msg":"two","node":"a","g":{"n":2}` + "\n"},
		{"the node", own.String(), "msg=two node=a g.n=2\nmsg=three node=a\n"},
	} {
		var got strings.Builder
		for line := range strings.Lines(c.got) {
			i := strings.Index(line, `"msg"`)
			if i < 0 {
				i = strings.Index(line, "msg=")
			}
			got.WriteString(strings.Replace(line[i:], "}\n", "\n", 1))
		}
		if got.String() != c.want {
			t.Errorf("%s got %q, want %q", c.who, got.String(), c.want)
		}
	}
}

// One who does not take what they follow is told how much they have missed, where it
// is missing, and holds up nobody.
func TestLogOfWhoDoesNotTakeIt(t *testing.T) {
	l := newLogs()
	r, _ := l.follow(slog.LevelInfo)
	line := bytes.Repeat([]byte("x"), logUnread/8)
	for range 8 + 5 {
		_, _ = l.Write(line)
	}
	_, _ = l.Write([]byte("short")) // it would fit, behind a gap
	got := r.take()
	if !bytes.HasPrefix(got, bytes.Repeat(line, 8)) || !bytes.Contains(got[logUnread:], []byte(`"msg":"6 lines were lost","lost":6}`+"\n")) {
		t.Errorf("behind %d bytes it says %q", logUnread, got[min(len(got), logUnread):])
	}
	_, _ = l.Write([]byte("then"))
	if got := r.take(); string(got) != "then" {
		t.Errorf("after the gap: %q", got)
	}
}

func TestLogIsServed(t *testing.T) {
	n := &Node{logs: newLogs()}
	server := httptest.NewServer(http.HandlerFunc(n.serveLog))
	defer server.Close()
	get := func(level string, stop context.Context) *http.Response {
		q, err := http.NewRequestWithContext(stop, http.MethodGet, server.URL+"?level="+level, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = answer.Body.Close() })
		return answer
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if a := get("loud", ctx); a.StatusCode != http.StatusBadRequest {
		t.Errorf("the level loud: %s", a.Status)
	}
	log := slog.New(n.logs.handler(slog.DiscardHandler))
	for i := range logReaders {
		a := get("debug", ctx)
		log.Debug("hello")
		var line [1 << 10]byte
		if n, err := a.Body.Read(line[:]); err != nil || !bytes.Contains(line[:n], []byte(`"level":"DEBUG","msg":"hello"`)) {
			t.Fatalf("reader %d: %q, %v", i, line[:n], err)
		}
	}
	if a := get("", ctx); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one too many: %s", a.Status)
	}
	stop()
	server.Close() // waits for those who were served
	if n.logs.follows(slog.LevelError) {
		t.Error("all have gone, and somebody follows")
	}
}

// BenchmarkLogNobodyFollows is what a line costs that is of no level that anybody asks
// for.
func BenchmarkLogNobodyFollows(b *testing.B) {
	log := slog.New(newLogs().handler(slog.DiscardHandler))
	for b.Loop() {
		log.Debug("hello", "n", 1)
	}
}
