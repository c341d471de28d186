package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// machine runs turns on this machine.
type machine struct {
	dir      string // everything is within
	edgeNode string // the program
	log      io.Writer
}

// newMachine makes one in a new folder within dir, and the program if none is named and it
// is needed. clean removes both.
func newMachine(ctx context.Context, dir, edgeNode string, needed bool, log io.Writer) (*machine, error) {
	dir, err := os.MkdirTemp(dir, "starling-bench-")
	if err != nil {
		return nil, err
	}
	m := &machine{dir: dir, edgeNode: edgeNode, log: log}
	if m.edgeNode == "" && needed {
		fmt.Fprintln(log, "bench: building edge-node")
		if m.edgeNode, err = buildEdgeNode(ctx, dir); err != nil {
			m.clean()
			return nil, err
		}
	}
	return m, nil
}

func (m *machine) clean() { _ = os.RemoveAll(m.dir) }

// measured is what a sender says in the end; edge-node bench says more.
type measured struct {
	PerS     float64 `json:"per_s"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	Messages int     `json:"messages"`
	Seconds  float64 `json:"seconds"`
}

// A cluster is a system that has been started for a turn.
type cluster struct {
	pids   []int // of the three processes
	sender *sender
	groups int
	limits string
	stop   func()
}

// systems start clusters in an empty folder.
var systems = map[string]func(ctx context.Context, m *machine, dir string, w workload) (*cluster, error){
	starlingName:  startStarling,
	jetstreamName: startJetStream(false),
	perRoomName:   startJetStream(true),
	raftName:      startRaft,
}

// The systems, in the order of tables.
const (
	starlingName  = "starling"
	jetstreamName = "jetstream"
	perRoomName   = "jetstream-per-room"
	raftName      = "raft-bare"
)

func systemNames() []string { return []string{starlingName, jetstreamName, perRoomName, raftName} }

// turn measures once.
func (m *machine) turn(ctx context.Context, name string, t turn) (row, error) {
	fsync := float64(t.work.Fsync) / float64(time.Millisecond)
	r := row{System: t.system, Workload: t.work.Name(), Round: t.round, FsyncMs: &fsync}
	dir := filepath.Join(m.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	c, err := systems[t.system](ctx, m, dir, t.work)
	if errors.Is(err, errNoTracer) {
		r.Missing = err.Error()
		return r, nil
	}
	if err != nil {
		return r, err
	}
	defer c.stop()
	var servers, client stopwatch
	got, err := c.measure(ctx, t.work, &servers, &client)
	if err != nil {
		return r, err
	}
	r.PerS, r.P50, r.P99, r.Messages, r.Seconds = got.PerS, got.P50, got.P99, got.Messages, got.Seconds
	r.Groups, r.Limits = c.groups, c.limits
	r.ServerCPU, r.ClientCPU = servers.per100k(got.Messages), client.per100k(got.Messages)
	if r.ServerCPU != nil && r.ClientCPU != nil {
		sum := *r.ServerCPU + *r.ClientCPU
		r.CPU = &sum
	}
	return r, nil
}

// A stopwatch measures the processor time that processes take while it counts.
type stopwatch struct {
	pids     []int
	from, to time.Duration
	unknown  bool
}

func (w *stopwatch) take(begins bool) {
	used, known := processorTime(w.pids)
	w.unknown = w.unknown || !known
	if begins {
		w.from = used
	} else {
		w.to = used
	}
}

// per100k is in s per 100,000 messages; nil = not known.
func (w *stopwatch) per100k(messages int) *float64 {
	if w.unknown || messages == 0 {
		return nil
	}
	v := (w.to - w.from).Seconds() / float64(messages) * 100_000
	return &v
}

// measure runs the sender, with a watch on the servers and one on itself.
func (c *cluster) measure(ctx context.Context, w workload, servers, client *stopwatch) (got measured, err error) {
	servers.pids = c.pids
	err = c.sender.run(ctx, w.WarmUp+time.Duration(w.Seconds*float64(time.Second)), &got, func(begins bool) {
		client.pids = []int{c.sender.cmd.Process.Pid}
		servers.take(begins)
		client.take(begins)
	})
	if err == nil && got.Messages == 0 {
		err = errors.New("nothing was acknowledged while it counted")
	}
	return got, err
}

// processorTime is what processes have taken of the processors, of which only
// Linux tells.
func processorTime(pids []int) (sum time.Duration, known bool) {
	const perSecond = 100 // USER_HZ, which is the same on every architecture that Go knows
	for _, pid := range pids {
		fields := stat(pid)
		if len(fields) < 13 {
			return 0, false
		}
		user, err1 := strconv.ParseInt(fields[11], 10, 64)
		system, err2 := strconv.ParseInt(fields[12], 10, 64)
		if err1 != nil || err2 != nil {
			return 0, false
		}
		sum += time.Duration(user+system) * time.Second / perSecond
	}
	return sum, true
}

// stat is what Linux says of a process, from its third field on.
func stat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, rest, _ := bytes.Cut(b, []byte(") ")) // the second is a name, which may hold spaces
	var fields []string
	for f := range bytes.FieldsSeq(rest) {
		fields = append(fields, string(f))
	}
	return fields
}

// freeAddrs returns addresses of this machine at which nothing listens now.
func freeAddrs(n int) (addrs []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at once, so that no two are the same
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// startOwn starts the servers of a system whose servers are this program, and
// readies its sender, by its name.
func startOwn(ctx context.Context, m *machine, dir, server, name string, w workload, groups int) (*cluster, error) {
	addrs, err := freeAddrs(6)
	if err != nil {
		return nil, err
	}
	var specs []serverSpec
	for i := range 3 {
		s := serverSpec{Number: i, Dir: filepath.Join(dir, strconv.Itoa(i)), Addrs: addrs[:3], Links: addrs[3:], Groups: groups}
		if err := os.Mkdir(s.Dir, 0o700); err != nil {
			return nil, err
		}
		specs = append(specs, s)
	}
	up, err := startServers(ctx, m.log, server, w.Fsync, specs)
	if err != nil {
		return nil, err
	}
	c := &cluster{groups: groups, stop: func() { stopServers(up) }}
	for _, s := range up {
		c.pids = append(c.pids, s.pid)
	}
	self, err := os.Executable()
	if err != nil {
		c.stop()
		return nil, err
	}
	w.Groups = groups
	c.sender = &sender{cmd: exec.Command(self, sendPart, name), spec: senderSpec{name, addrs[:3], w}}
	c.sender.cmd.Env = partEnv()
	return c, nil
}
