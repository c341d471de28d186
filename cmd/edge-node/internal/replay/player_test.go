package replay

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

// list is a source of records in memory.
type list struct{ records []Record }

func (l *list) Next() (Record, error) {
	if len(l.records) == 0 {
		return Record{}, io.EOF
	}
	r := l.records[0]
	l.records = l.records[1:]
	return r, nil
}

func records(rooms ...string) *list {
	l := &list{}
	for i, room := range rooms {
		l.records = append(l.records, Record{Line: i + 1, Millis: int64(i) * 1000, Room: room, User: "u", Kind: "message", Text: "x"})
	}
	return l
}

// echo is a mesh that acks after a delay and keeps what it was sent.
type echo struct {
	delay  time.Duration
	refuse map[string]error // by id

	mu   sync.Mutex
	seq  map[string]uint64
	open int
	peak int
	busy map[string]int
	log  []string
}

func (e *echo) Send(ctx context.Context, m client.Message, done func(client.Ack, error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.log = append(e.log, m.ID+"@"+m.Room)
	e.open++
	e.peak = max(e.peak, e.open)
	e.busy[m.Room]++
	if e.busy[m.Room] > 1 {
		e.log = append(e.log, "overlap in "+m.Room)
	}
	e.seq[m.Room]++
	ack := client.Ack{ID: m.ID, Seq: e.seq[m.Room]}
	go func() {
		t := time.NewTimer(e.delay)
		defer t.Stop()
		err := e.refuse[m.ID]
		select {
		case <-t.C:
		case <-ctx.Done():
			err = &client.Unknown{ID: m.ID, Err: context.Cause(ctx)}
		}
		e.mu.Lock()
		e.open--
		e.busy[m.Room]--
		e.mu.Unlock()
		done(ack, err)
	}()
}

func newEcho(delay time.Duration) *echo {
	return &echo{delay: delay, seq: make(map[string]uint64), busy: make(map[string]int), refuse: make(map[string]error)}
}

func playerOf(mesh *echo, pace Pace, from source) *player {
	return &player{
		pace: pace, judge: NewJudge("run", []string{"fra"}), source: from, sessions: [][]sender{{mesh}},
		follow:  func(context.Context, string) error { return nil },
		acked:   func(string, string, uint64) error { return nil },
		flush:   func() error { return nil },
		refused: func(Record, error) {},
	}
}

func TestPlayWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mesh := newEcho(time.Second)
		p := playerOf(mesh, Pace{Window: 3}, records("a", "a", "a", "a", "a", "a", "a"))
		if err := p.play(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := p.judge.counts(); n.acked != 7 || mesh.peak != 3 {
			t.Errorf("acked %d, at most %d open; want 7, 3", n.acked, mesh.peak)
		}
	})
}

func TestPlayInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mesh := newEcho(time.Second)
		p := playerOf(mesh, Pace{Window: 10, InOrder: true}, records("a", "a", "b", "a", "b"))
		began := time.Now()
		if err := p.play(t.Context()); err != nil {
			t.Fatal(err)
		}
		slices.SortStableFunc(mesh.log, func(a, b string) int { return strings.Compare(a[len(a)-1:], b[len(b)-1:]) })
		if got, want := strings.Join(mesh.log, " "), "run/00000001@a run/00000002@a run/00000004@a run/00000003@b run/00000005@b"; got != want {
			t.Errorf("sent by room %q, want %q", got, want)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("took %v, want 3s: rooms do not wait for each other", took)
		}
	})
}

func TestPlayPaces(t *testing.T) {
	for _, tt := range []struct {
		pace Pace
		want time.Duration // 5 records, the last one's ack included
	}{
		{Pace{Window: 9, Rate: 2}, 2*time.Second + time.Millisecond},
		{Pace{Window: 9, Speed: 8}, 500*time.Millisecond + time.Millisecond},
		{Pace{Window: 9}, time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := playerOf(newEcho(time.Millisecond), tt.pace, records("a", "a", "a", "a", "a"))
			began := time.Now()
			if err := p.play(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took != tt.want {
				t.Errorf("%+v: took %v, want %v", tt.pace, took, tt.want)
			}
		})
	}
}

func TestPlayEnds(t *testing.T) {
	rejected := func(code string) error {
		return &client.Rejected{ID: "x", Err: wire.Errorf(code, "no")}
	}
	const any = -1 // what else was open
	for _, tt := range []struct {
		name     string
		refuse   error
		delay    time.Duration
		err      string
		rejected int
		unknown  int
	}{
		{name: "one is rejected", refuse: rejected(wire.CodeBadRequest), rejected: 1},
		{name: "all will be forbidden", refuse: rejected(wire.CodeForbidden), err: "forbidden", rejected: 1, unknown: any},
		{name: "no answer", delay: time.Hour, err: "nothing was acknowledged", unknown: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mesh := newEcho(tt.delay)
				if tt.refuse != nil {
					mesh.refuse["run/00000002"] = tt.refuse
				}
				p := playerOf(mesh, Pace{Window: 2}, records("a", "b", "c", "d"))
				err := p.play(t.Context())
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				n := p.judge.counts()
				if n.rejected != tt.rejected || tt.unknown != any && n.sent-n.acked-n.rejected != tt.unknown {
					t.Errorf("%+v, want %d rejected, %d unknown", n, tt.rejected, tt.unknown)
				}
			})
		})
	}
}

// TestAcksAreWrittenFirst stops when an ack cannot be written, without
// counting it.
func TestAcksAreWrittenFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("disk full")
		p := playerOf(newEcho(time.Second), Pace{Window: 2}, records("a", "b", "c"))
		var written []string
		p.acked = func(room, id string, seq uint64) error {
			if n := p.judge.counts(); n.acked != 0 {
				t.Errorf("%d acks were counted before %s was written", n.acked, id)
			}
			written = append(written, fmt.Sprint(room, id, seq))
			return full
		}
		if err := p.play(t.Context()); !errors.Is(err, full) {
			t.Errorf("error %v", err)
		}
		if len(written) != 2 {
			t.Errorf("written: %q", written)
		}
	})
}

func TestRoomThatCannotBeFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mesh := newEcho(time.Second)
		p := playerOf(mesh, Pace{Window: 2, InOrder: true}, records("a", "b", "b", "a"))
		p.follow = func(_ context.Context, room string) error {
			if room == "b" {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		if err := p.play(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), `"b"`) {
			t.Errorf("error %v", err)
		}
		if got := strings.Join(mesh.log, " "); got != "run/00000001@a" {
			t.Errorf("sent %q", got)
		}
	})
}

func TestRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	text := `{"t":5,"room":"#a","from":"x","kind":"action","text":"wav\u00e9s"}

{"lang":"ko","src":"kdconv","dialog":"d","turn":9,"text":"안녕"}
{"room":"#a","from":"x","kind":"topic"}
nonsense
{"text":"of nobody"}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, want := range []Record{
		{1, 5, "#a", "x", "action", "wavés"},
		{3, 0, "lang/ko", "kdconv-2", "message", "안녕"},
	} {
		if got, err := r.Next(); err != nil || got != want {
			t.Errorf("got %+v (%v), want %+v", got, err, want)
		}
	}
	for _, line := range []int{4, 5, 6} {
		var bad *LineError
		if _, err := r.Next(); !errors.As(err, &bad) || bad.Line != line || !strings.Contains(err.Error(), path) {
			t.Errorf("got %v, want an error of line %d", err, line)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if r.Share() != 1 {
		t.Errorf("read %v of the file", r.Share())
	}
}

// TestDamagedFiles checks that what cannot be read is named, with the reason.
func TestDamagedFiles(t *testing.T) {
	var whole bytes.Buffer
	z := gzip.NewWriter(&whole)
	if _, err := z.Write([]byte(`{"room":"#a","from":"x","text":"hi"}` + "\n")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		content string
		says    string
	}{
		"header.gz": {whole.String()[:5], "is not a whole gzip file"},
		"cut.gz":    {whole.String()[:whole.Len()-9], "the compressed file is cut short"},
		"long":      {strings.Repeat("x", maxLine+1), "line 1: it is longer than 256 KiB"},
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path)
		for err == nil {
			_, err = r.Next()
		}
		if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v; want %s named, and %q", err, path, tt.says)
		}
	}
	dir := t.TempDir()
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), dir+" is a folder") {
		t.Errorf("a folder: %v", err)
	}
}
