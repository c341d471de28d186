package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/cmd/edge-node/internal/replay"
	"github.com/starling-im/starling/edge"
)

const replayLong = `Play a recorded chat through the mesh, and judge what comes out.

FILE, plain or compressed with gzip, has one record per line:

  {"t":1101000000000,"room":"#ubuntu","from":"nick","kind":"message","text":"hi"}

where t is Unix time in milliseconds and kind is message, action, join or leave.
Dialogues {"lang","src","dialog","turn","text"} work too: they become rooms
lang/<lang> and users <src>-<turn mod 7>. Every user is at one region, always
the same; every room has followers in every region, each of which talks only to
its own region's nodes. Each record becomes exactly one event.

The ids of the messages derive from --run and the line numbers, so the same name
goes on where it stopped, and nothing doubles: the summary says how many records
were there before. Their acks are appended to --acks again. It stops at the first
line that is no record, and names it; what was sent before that counts.

The summary is computed from what the followers received: gaps, duplicates,
disorder, changed contents, and a hash of each region's view, which must be the
same everywhere. Any anomaly makes the exit status 1. With --json the summary is
one object on the last line. In its tables

  COPIES   is how many copies of an event came into the region from others, per
           event whose room is at home elsewhere; 1 is the least, and - is unknown
           or no such event
  (bound)  with --wan, is the least time that light and a quorum allow: half a
           round trip to the room's home, one from there to the nearest other
           region, and half a one back

At most 64 sessions speak for all users, which takes a token with act_as: *.`

// replayOptions are the flags of replay.
type replayOptions struct {
	userFlags
	pace      replay.Pace
	run       string
	acks      string
	rooms     []string
	followers int
	sessions  int
}

const (
	maxSessions  = 64
	maxWindow    = 1 << 16
	maxFollowers = 100
)

func (a *app) replayCommand() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use: "replay FILE", Short: "Play a recorded chat and judge what is delivered", GroupID: groupChat,
		Long: replayLong,
		Example: `  edge-node replay chat.jsonl.gz --window 256
  edge-node replay chat.jsonl --in-order --run monday --acks acks.jsonl --json
  edge-node replay chat.jsonl --room '#ubuntu' --speed 60`,
		Args:              needs("FILE"),
		ValidArgsFunction: completeFile("jsonl", "gz"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return a.replay(cmd.Context(), &o, args[0])
		},
	}
	o.flags(a, cmd)
	f := cmd.Flags()
	f.IntVar(&o.pace.Window, "window", 64, "sends that may be unanswered at once")
	f.BoolVar(&o.pace.InOrder, "in-order", false, "send a room's next record only after the ack of its last")
	f.Float64Var(&o.pace.Rate, "rate", 0, "records per second (default: as fast as it goes)")
	f.Float64Var(&o.pace.Speed, "speed", 0, "play at this multiple of the original speed")
	f.StringVar(&o.run, "run", "", "name of the run; the same name goes on where it stopped (default: random)")
	f.StringVar(&o.acks, "acks", "", "append each ack to this file before it is counted; one that the file has already too")
	f.StringSliceVar(&o.rooms, "room", nil, "play only the records of these rooms")
	f.IntVar(&o.followers, "followers", 1, "followers of every room in each region")
	f.IntVar(&o.sessions, "sessions", 1, "sessions that send, over all regions; at least one in each")
	f.Lookup("region").Usage = "region whose nodes to ask where rooms are at home; records are sent in all regions (default: that of the context's first node)"
	must(cmd.MarkFlagFilename("acks"))
	return cmd
}

var runName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func (o *replayOptions) check() error {
	switch {
	case o.pace.Window < 1 || o.pace.Window > maxWindow:
		return usagef("--window is %d, not 1 to %d", o.pace.Window, maxWindow)
	case o.sessions < 1 || o.sessions > maxSessions:
		return usagef("--sessions is %d, not 1 to %d", o.sessions, maxSessions)
	case o.followers < 1 || o.followers > maxFollowers:
		return usagef("--followers is %d, not 1 to %d", o.followers, maxFollowers)
	case o.run != "" && !runName.MatchString(o.run):
		return usagef("--run is %q: use up to 64 letters, digits, dots and dashes", o.run)
	case o.pace.Rate < 0 || o.pace.Speed < 0 || math.IsNaN(o.pace.Rate) || math.IsNaN(o.pace.Speed):
		return usagef("--rate and --speed must not be negative")
	case o.pace.Rate > 0 && o.pace.Speed > 0:
		return usagef("--rate and --speed exclude each other")
	}
	return nil
}

// replay plays a file.
func (a *app) replay(ctx context.Context, o *replayOptions, path string) (err error) {
	mesh, err := a.mesh()
	if err != nil {
		return err
	}
	if _, err := mesh.AllAddrs(o.region, 0); err != nil {
		return err
	}
	records, err := replay.Open(path)
	if err != nil {
		return err
	}
	defer records.Close()
	cfg := replay.Config{
		Run: o.run, Resume: o.run != "", Pace: o.pace, Records: only(records, o.rooms), Regions: mesh.Regions(),
		Sessions: o.sessions, Followers: o.followers,
	}
	if cfg.Run == "" {
		cfg.Run = rand.Text()
	}
	if o.acks != "" {
		file, err := openAcks(o.acks)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		cfg.Acks = file
	}
	clients, err := a.connections(mesh, o, &cfg)
	if err != nil {
		return err
	}
	cfg.Refused = a.refusals()
	before := a.meshLinks(ctx, mesh)
	began := time.Now()
	stop := func() {}
	judge, failed := replay.Run(ctx, cfg, func(j *replay.Judge) { stop = a.progress(j, records) })
	took := time.Since(began)
	stop()
	s := summarize(judge, cfg, took)
	s.Sessions = clients.ends()
	a.addMesh(context.WithoutCancel(ctx), s, judge, mesh, o, before)
	if s.Messages == 0 {
		if failed != nil {
			return verdict(s, failed) // a table of zeros would tell nothing
		}
		a.warn(nothingIn(path, o.rooms))
		if !a.json {
			return nil
		}
	}
	if err := a.printSummary(s, mesh); err != nil {
		return err
	}
	return verdict(s, failed)
}

// verdict is the error of a replay, if it deserves one.
func verdict(s *summary, failed error) error {
	found := s.Anomalies()
	switch {
	case failed != nil && errors.Is(failed, context.Canceled):
		return fmt.Errorf("the replay was interrupted; --run %s goes on where it stopped", s.Run)
	case failed != nil:
		return fmt.Errorf("the replay failed: %w", failed)
	case len(found) > 0:
		return fmt.Errorf("the replay found: %s", join(found))
	}
	return nil
}

// nothingIn says why nothing was played.
func nothingIn(path string, rooms []string) string {
	if len(rooms) > 0 {
		return fmt.Sprintf("%s has no record of the rooms %q", path, rooms)
	}
	return path + " has no records"
}

// only passes on the records of some rooms; none named means all.
func only(records *replay.Records, rooms []string) interface{ Next() (replay.Record, error) } {
	if len(rooms) == 0 {
		return records
	}
	f := &filter{records, make(map[string]bool)}
	for _, r := range rooms {
		f.rooms[r] = true
	}
	return f
}

type filter struct {
	records *replay.Records
	rooms   map[string]bool
}

// Next returns the next record of the wanted rooms.
func (f *filter) Next() (replay.Record, error) {
	for {
		r, err := f.records.Next()
		if err != nil || f.rooms[r.Room] {
			return r, err
		}
	}
}

// connections says how the sessions and followers of a replay connect.
func (a *app) connections(mesh *home.Context, o *replayOptions, cfg *replay.Config) (*clients, error) {
	speak, err := o.tokens(mesh, edge.Claims{User: "replay", ActAs: "*"})
	if err != nil {
		return nil, err
	}
	all := &clients{}
	cfg.Session = func(ctx context.Context, region string, n int) (*client.Client, error) {
		addrs, err := mesh.AllAddrs(region, n)
		if err != nil {
			return nil, err
		}
		return all.add(a.dial(ctx, mesh, connection{addrs: addrs, token: speak, inFlight: o.pace.Window}))
	}
	cfg.Follower = func(ctx context.Context, region string, n int) (*client.Client, error) {
		return all.add(a.dial(ctx, mesh, connection{addrs: mesh.Addrs(region, n), token: speak, within: followWithin}))
	}
	return all, nil
}

// clients are those of a replay.
type clients struct {
	mu  sync.Mutex
	all []*client.Client
}

func (c *clients) add(one *client.Client, err error) (*client.Client, error) {
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.all = append(c.all, one)
	}
	return one, err
}

// ends is how the sessions of all clients have ended.
func (c *clients) ends() (sum client.Ends) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.all {
		e := one.Ends()
		sum.Moved, sum.Lost = sum.Moved+e.Moved, sum.Lost+e.Lost
	}
	return sum
}

// followWithin is how long a region's followers wait for a node of theirs.
const followWithin = time.Minute

// openAcks opens a file of acks for appending. A line that was cut short by a
// crash is ended, so that it does not spoil the next one.
func openAcks(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	last := make([]byte, 1)
	if end, err := f.Seek(0, io.SeekEnd); err == nil && end > 0 {
		if _, err := f.ReadAt(last, end-1); err == nil && !bytes.Equal(last, []byte("\n")) {
			_, _ = f.WriteString("\n")
		}
	}
	return f, nil
}

// maxRefusals bounds the refused records that are reported one by one.
const maxRefusals = 10

// refusals reports the first records that were not acked.
func (a *app) refusals() func(replay.Record, error) {
	n := 0
	return func(r replay.Record, err error) {
		if isStop(err) {
			return // all that were open when the user stopped it
		}
		switch n++; {
		case n <= maxRefusals:
			fmt.Fprintf(a.stderr, "edge-node: line %d: %s\n", r.Line, oneLine(err))
		case n == maxRefusals+1:
			fmt.Fprintln(a.stderr, "edge-node: further lines are counted only")
		}
	}
}
