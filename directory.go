package starling

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/starling-im/starling/consensus"
	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// The directory is a room: its events are changes, and every node follows it
// and folds them (docs/adr/0002-the-directory-is-a-room.md).
var directoryRoom = room.ID{App: directory.SystemApp, Room: directory.SystemRoom}

// keeper keeps this node's copy of the directory, in memory and on disk, so
// that a node which is cut off starts and serves with what it knew.
type keeper struct {
	node    *Node
	current atomic.Pointer[copied]
	changes changes
	hold    func() // called before each fold, by tests that make a node lag
}

// copied is the directory after a number of changes.
type copied struct {
	Seq   uint64
	Epoch uint64 // of the room
	State *directory.State
}

func newKeeper(n *Node) *keeper {
	k := &keeper{node: n, hold: func() {}}
	k.current.Store(&copied{State: directory.New(geo.Rank)})
	return k
}

func (k *keeper) state() *directory.State { return k.current.Load().State }

// key finds the key of a token, for the door.
func (k *keeper) key(kid string) (edge.Key, bool, bool) {
	s := k.state()
	found, ok := s.Key(kid)
	return edge.Key{ID: found.ID, App: found.App, Secret: found.Secret}, ok, s.Version() > 0
}

// run keeps the copy until ctx ends, and starts the groups that it names.
func (k *keeper) run(ctx context.Context) {
	if err := k.startRoot(); err != nil {
		k.node.fail(err)
		return
	}
	k.startGroups()
	for ctx.Err() == nil {
		if err := k.follow(ctx); err != nil && ctx.Err() == nil {
			k.node.log.Debug("following the directory again", "err", err)
			k.node.root.lost.Store(true)
			wait(ctx, followAgain)
		}
	}
}

// startRoot starts group 0 where there is a replica by now, or where its first ones
// are to be. Once it has moved the first configuration is history: a node that gave
// its replica up must not found the group again.
func (k *keeper) startRoot() error {
	held, err := k.node.host.Held()
	first, home := k.node.root.first, k.node.root.first[0]
	if now := k.state().Root().Voters; len(now) > 0 {
		first, home = nil, now[0]
	}
	if err == nil && (slices.Contains(first, k.node.cfg.Node) || slices.Contains(held, 0)) {
		k.start(0, first, home)
	}
	return err
}

// follow folds changes as they come.
func (k *keeper) follow(ctx context.Context) error {
	if k.state().Version() == 0 {
		founding, stop := context.WithCancel(ctx)
		var founder sync.WaitGroup
		founder.Go(func() { k.found(founding) })
		defer founder.Wait()
		defer stop()
	}
	now := *k.current.Load()
	r, err := k.node.hub.Follow(directoryRoom, now.Seq)
	if err != nil {
		return err
	}
	defer func() { r.Close() }()
	page, err := k.head(ctx, r)
	if err != nil {
		return err
	}
	until := uint64(0)
	if now.Seq > 0 && page.Epoch > max(1, now.Epoch) {
		// The directory was recovered with loss, and what is here may have been
		// lost. It serves until all there is now has been folded again.
		k.node.log.Warn("the directory has another epoch and is fetched anew", "was", now.Epoch, "is", page.Epoch)
		now, until = copied{State: directory.New(geo.Rank)}, page.HeadSeq
		anew, err := k.node.hub.Follow(directoryRoom, 0)
		if err != nil {
			return err
		}
		r.Close()
		r = anew
		k.changes.forget()
		if !r.Meet(page.HeadSeq, page.Epoch) {
			return errEpoch
		}
	}
	now.Epoch = page.Epoch
	return k.foldAll(ctx, r, now, until)
}

// errEpoch says that one of two that know the directory has yet to hear of its
// epoch.
var errEpoch = wire.Errorf(wire.CodeUnavailable, "the directory is just getting another epoch").After(followAgain)

// head reads the head of the directory's room, after a reader of it began.
func (k *keeper) head(ctx context.Context, r *relay.Reader) (*wire.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, followWithin)
	defer cancel()
	page, err := k.node.pageOf(ctx, directoryRoom, &wire.History{Limit: headOnly}, 0)
	if err == nil && (!r.Meet(page.HeadSeq, page.Epoch) || page.Epoch < k.current.Load().Epoch) {
		err = errEpoch
	}
	return page, err
}

// foldAll folds what a reader brings, and shows it from a seq on.
func (k *keeper) foldAll(ctx context.Context, r *relay.Reader, now copied, until uint64) error {
	for {
		events, err := r.Next(ctx)
		if err != nil {
			return err
		}
		for _, b := range events {
			k.hold()
			if now, err = k.fold(now, b, until); err != nil {
				return err
			}
		}
		if now.Seq < until {
			continue
		}
		if err := k.save(); err != nil {
			k.node.fail(err)
			return err
		}
		k.startGroups()
	}
}

// fold applies one change. One that the directory refuses changes nothing, on
// every node alike; one that this release cannot read stops the node.
func (k *keeper) fold(now copied, encoded []byte, until uint64) (copied, error) {
	e, err := wire.DecodeEvent(encoded)
	if err != nil {
		return now, err
	}
	change, err := directory.Decode([]byte(e.Content))
	if err == nil {
		var next *directory.State
		if next, err = now.State.Apply(change); err == nil {
			now.State = next
		}
	}
	var refused *directory.Refusal
	if errors.As(err, &refused) && refused.Code == wire.CodeNewerFormat {
		k.node.fail(err)
		return now, err
	}
	if err != nil {
		k.node.log.Warn("a change of the directory is refused", "seq", e.Seq, "err", err)
	}
	now.Seq = e.Seq
	if now.Seq >= until {
		shown := now
		k.node.admit(k.current.Swap(&shown).State, now.State)
		k.changes.folded(e.Seq, now.State.Placement(), err)
	}
	return now, nil
}

// found writes the first directory of a new mesh: whoever leads group 0 does,
// and the client_msg_id makes it happen once.
func (k *keeper) found(ctx context.Context) {
	content := directory.Encode(directory.Change{Init: k.node.cfg.firstDirectory()})
	c := room.Command{
		ID: directoryRoom, User: directory.SystemApp, ClientMsgID: "init", Kind: room.Message, Content: string(content), Access: room.Open,
	}
	tick := time.NewTicker(foundEvery)
	defer tick.Stop()
	for k.state().Version() == 0 {
		if k.node.host.Leader(0) == k.node.cfg.Node {
			k.node.proposeHere(0, c.Append(nil), func(_ *wire.Ack, err error) {
				if err != nil {
					k.node.log.Debug("the directory could not be founded yet", "err", err)
				}
			})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// foundEvery is how often a node of a new mesh looks whether it leads group 0.
const foundEvery = 50 * time.Millisecond

// startGroups starts the groups that have a replica on this node. Once a group's
// replicas have changed, the first configuration is history: who has nothing of
// the group then waits for its leader.
func (k *keeper) startGroups() {
	for _, g := range k.state().Groups() {
		if !k.node.replicates(g.ID) {
			continue
		}
		first := g.Voters
		if len(g.Now.Voters) > 0 {
			first = nil
		}
		k.start(g.ID, first, g.Replicas().Voters[0])
	}
}

func (k *keeper) start(id uint32, first []string, home string) {
	g := consensus.Group{ID: id, Voters: first, Preferred: home == k.node.cfg.Node, Heartbeat: k.node.heartbeat(id)}
	if err := k.node.host.Start(g); err != nil {
		k.node.fail(err)
	}
}

// DirectoryFile holds a node's copy of the directory, in its data folder.
const DirectoryFile = "directory.json"

// directoryFormat is the version of the copy's layout.
const directoryFormat = 1

type savedDirectory struct {
	Format int             `json:"format"`
	Seq    uint64          `json:"seq"`
	Epoch  uint64          `json:"epoch,omitzero"`
	State  json.RawMessage `json:"state"`
}

// load reads the copy of an earlier run; without one the directory is empty.
func (k *keeper) load() error {
	text, err := os.ReadFile(filepath.Join(k.node.cfg.Data, DirectoryFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var saved savedDirectory
	if err := json.Unmarshal(text, &saved); err != nil {
		return k.anew(err)
	}
	if saved.Format > directoryFormat {
		return wire.Errorf(wire.CodeNewerFormat, "%s has format %d, written by a newer release; this one knows %d", DirectoryFile, saved.Format, directoryFormat)
	}
	state, err := directory.Restore(saved.State, geo.Rank)
	if err != nil {
		return k.anew(err)
	}
	k.current.Store(&copied{Seq: saved.Seq, Epoch: saved.Epoch, State: state})
	k.changes.folded(saved.Seq, state.Placement(), nil)
	return nil
}

// anew does without a damaged copy: it is fetched again from group 0. A power
// loss can damage it, since nothing waits for it to be on disk.
func (k *keeper) anew(err error) error {
	k.node.log.Warn("the copy of the directory is damaged and is fetched anew", "file", DirectoryFile, "err", err)
	return nil
}

// save writes the copy beside the old one and puts it in its place.
func (k *keeper) save() error {
	text, err := k.encode()
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(k.node.cfg.Data, DirectoryFile), text)
}

func (k *keeper) encode() ([]byte, error) {
	now := k.current.Load()
	state, err := now.State.Snapshot()
	if err != nil {
		return nil, err
	}
	return json.Marshal(savedDirectory{directoryFormat, now.Seq, now.Epoch, state})
}
