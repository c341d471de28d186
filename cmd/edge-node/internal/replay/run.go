package replay

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/starling-im/starling/client"
)

// Config says what to play and how.
type Config struct {
	// Run names the run; the ids of its messages derive from it. A run that
	// may have been played before in part is a Resume: its rooms are followed
	// from their beginning.
	Run    string
	Resume bool
	Pace   Pace
	// Records gives what to play, io.EOF after the last.
	Records interface{ Next() (Record, error) }
	// Regions are where users and followers are.
	Regions []string
	// Sessions are those of all regions, at least one each; Followers are
	// those of each region.
	Sessions, Followers int
	// Session and Follower open the n-th connection of a region. A session
	// may fall back to other regions, a follower must not.
	Session, Follower func(ctx context.Context, region string, n int) (*client.Client, error)
	// Acks gets a line of JSON for each ack, before it counts; nil = nobody.
	Acks io.Writer
	// Refused hears of each record that was not acked.
	Refused func(r Record, err error)
}

// Run plays the records and waits until every follower has what was acked. It
// returns the judge, who can tell what came of it, and why the run ended
// before its end, if it did. Judge.Progress may be called meanwhile: watch
// is given the judge before the first record is sent.
func Run(ctx context.Context, cfg Config, watch func(*Judge)) (*Judge, error) {
	judge := NewJudge(cfg.Run, cfg.Regions)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	listening, stop := context.WithCancel(context.WithoutCancel(ctx))
	audience := &followers{judge: judge, fromHead: !cfg.Resume, fail: func(err error) { cancel(err) }}
	defer audience.close()
	defer stop()
	for region, name := range cfg.Regions {
		for n := range cfg.Followers {
			audience.add(region, func(ctx context.Context) (*client.Client, error) { return cfg.Follower(ctx, name, n) })
		}
	}
	sessions, err := dialAll(ctx, cfg)
	defer func() {
		for _, c := range slices.Concat(sessions...) {
			_ = c.Close()
		}
	}()
	if err != nil {
		return judge, err
	}
	p := &player{
		pace: cfg.Pace, judge: judge, source: cfg.Records, refused: cfg.Refused,
		follow: func(wait context.Context, room string) error { return audience.follow(wait, listening, room) },
	}
	for _, region := range sessions {
		var senders []sender
		for _, c := range region {
			senders = append(senders, c)
		}
		p.sessions = append(p.sessions, senders)
	}
	p.acked, p.flush = ackLog(cfg.Acks)
	watch(judge)
	err = p.play(ctx)
	if waited := judge.wait(ctx); err == nil {
		err = waited
	}
	return judge, err
}

func dialAll(ctx context.Context, cfg Config) ([][]*client.Client, error) {
	sessions := make([][]*client.Client, len(cfg.Regions))
	for i, region := range cfg.Regions {
		for n := range max(1, cfg.Sessions/len(cfg.Regions)) {
			c, err := cfg.Session(ctx, region, n)
			if err != nil {
				return sessions, err
			}
			sessions[i] = append(sessions[i], c)
		}
	}
	return sessions, nil
}

// ackLog writes acks as lines of JSON.
func ackLog(to io.Writer) (acked func(room, id string, seq uint64) error, flush func() error) {
	if to == nil {
		return func(string, string, uint64) error { return nil }, func() error { return nil }
	}
	w := bufio.NewWriterSize(to, 64<<10)
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	return func(room, id string, seq uint64) error {
		return lines.Encode(struct {
			Room string `json:"room"`
			ID   string `json:"client_msg_id"`
			Seq  uint64 `json:"seq"`
		}{room, id, seq})
	}, w.Flush
}

// behindAfter is how long nothing may be delivered before the wait for
// followers ends.
const behindAfter = 60 * time.Second

// wait returns when every follower has what was acked.
func (j *Judge) wait(ctx context.Context) error {
	patience := time.NewTimer(behindAfter)
	defer patience.Stop()
	for {
		behind := j.Behind()
		if len(behind) == 0 {
			return nil
		}
		select {
		case <-j.moved:
			patience.Reset(behindAfter)
		case <-ctx.Done():
			return fmt.Errorf("%w; %s", context.Cause(ctx), strings.Join(behind, ", "))
		case <-patience.C:
			return fmt.Errorf("nothing was delivered for %v: %s", behindAfter, strings.Join(behind, ", "))
		}
	}
}

// Progress returns how many records were sent and acked so far, the share of
// those read that have ended, and for how long the judge has been at it.
func (j *Judge) Progress() (sent, acked int, ended float64, since time.Duration) {
	t := j.counts()
	return t.sent, t.acked, float64(t.acked+t.rejected) / float64(max(1, t.read)), time.Since(j.start)
}
