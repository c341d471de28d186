package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// raftGroups are as many as edge-node dev has per region.
const raftGroups = 4

// startRaft starts three servers that have Raft and nothing else.
func startRaft(ctx context.Context, m *machine, dir string, w workload) (*cluster, error) {
	groups := w.Groups
	if groups == 0 {
		groups = raftGroups
	}
	return startOwn(ctx, m, dir, raftName, raftName, w, groups)
}

// serveRaft is one server, until ctx ends: a replica of each group over one
// store and one TCP port, and a port for clients.
func serveRaft(ctx context.Context, s serverSpec, ready func() error) error {
	db, err := openRaftStore(s.Dir)
	if err != nil {
		return err
	}
	defer db.Close()
	links, err := listenLinks(s.Links[s.Number])
	if err != nil {
		return err
	}
	defer links.close()
	var groups []*raftGroup
	defer func() {
		var work sync.WaitGroup
		for _, g := range groups {
			work.Go(g.close)
		}
		work.Wait()
	}()
	for id := range s.Groups {
		g, err := newRaftGroup(uint32(id), s, &groupStore{db, uint32(id)}, links.group(uint32(id)))
		if err != nil {
			return err
		}
		groups = append(groups, g)
	}
	go links.run()
	clients, err := net.Listen("tcp", s.Addrs[s.Number])
	if err != nil {
		return err
	}
	defer clients.Close()
	go acceptAll(clients, func(c net.Conn) { serveProposals(c, groups) })
	if err := ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func acceptAll(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go serve(c)
	}
}

// A raftGroup is a replica of one group.
type raftGroup struct {
	raft *raft.Raft
	// waiting are commands in the order of the log; a client hears of each.
	waiting chan waiting
}

type waiting struct {
	future raft.ApplyFuture
	done   func(error)
}

// recentLogs are kept in memory for the followers, as the library advises.
const recentLogs = 4096

// maxWaiting bounds the commands of a group that are under way.
const maxWaiting = 1 << 14

// newRaftGroup starts a replica. Timeouts are those of Starling's groups; all
// else is as the library has it by default, save that commands which wait are
// appended to the log together.
func newRaftGroup(id uint32, s serverSpec, store *groupStore, layer raft.StreamLayer) (*raftGroup, error) {
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(fmt.Sprint(s.Number))
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 400*time.Millisecond
	cfg.CommitTimeout = 250 * time.Millisecond
	cfg.MaxAppendEntries, cfg.BatchApplyCh = 256, true
	cfg.SnapshotThreshold = 1 << 62 // never within a turn
	cfg.Logger = hclog.NewNullLogger()
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer, MaxPool: 3, Timeout: 5 * time.Second, Logger: cfg.Logger,
	})
	first := raft.Configuration{}
	for i, link := range s.Links {
		first.Servers = append(first.Servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i)), Address: raft.ServerAddress(link)})
	}
	snapshots := raft.NewDiscardSnapshotStore()
	if err := raft.BootstrapCluster(cfg, store, store, snapshots, transport, first); err != nil {
		return nil, err
	}
	recent, err := raft.NewLogCache(recentLogs, store)
	if err != nil {
		return nil, err
	}
	r, err := raft.NewRaft(cfg, new(counter), recent, store, snapshots, transport)
	if err != nil {
		return nil, err
	}
	g := &raftGroup{raft: r, waiting: make(chan waiting, maxWaiting)}
	go g.answer()
	return g, nil
}

// answer tells the clients, in the order of the log.
func (g *raftGroup) answer() {
	for w := range g.waiting {
		w.done(w.future.Error())
	}
}

func (g *raftGroup) close() { _ = g.raft.Shutdown().Error() }

// counter is a state machine that does as little as one can.
type counter struct{ n uint64 }

// Apply implements raft.FSM.
func (c *counter) Apply(*raft.Log) any { c.n++; return c.n }

// Snapshot implements raft.FSM.
func (c *counter) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("no snapshots") }

// Restore implements raft.FSM.
func (c *counter) Restore(r io.ReadCloser) error { return r.Close() }

// serveProposals answers one client.
func serveProposals(c net.Conn, groups []*raftGroup) {
	out := newGathered(c)
	defer out.close()
	_ = readFrames(c, func(id uint64, group uint32, body []byte) error {
		if int(group) >= len(groups) {
			return fmt.Errorf("no group %d", group)
		}
		g := groups[group]
		g.waiting <- waiting{g.raft.Apply(body, 0), func(err error) {
			status := uint32(proposalDone)
			if err != nil {
				status = proposalFailed
			}
			out.frame(id, status, nil)
		}}
		return nil
	})
}

// What a client hears of a proposal, in place of the group.
const (
	proposalDone   = 0
	proposalFailed = 1
)

// A frame is an id, a group or status, and a body with its length.
const frameHeader = 8 + 4 + 4

// maxBody bounds the body of a frame, in bytes.
const maxBody = 1 << 20

func appendFrame(b []byte, id uint64, group uint32, body []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, id)
	b = binary.BigEndian.AppendUint32(b, group)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}
