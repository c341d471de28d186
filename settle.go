package starling

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// SettleInfo is the answer to the query "placement.settle".
type SettleInfo struct {
	// Placement is forgotten with all before it once Settled; until then Groups
	// of Of are done.
	Placement uint64 `json:"placement"`
	Settled   bool   `json:"settled"`
	Groups    int    `json:"groups"`
	Of        int    `json:"of"`
}

// settler makes earlier placements moot: each group is bound to the newest one,
// and for each room that is not where it belongs, the group where it belongs is
// told. It goes on where it stopped, and starting again does no harm.
type settler struct {
	node *Node

	mu   sync.Mutex
	done SettleInfo
	at   room.ID // the last room of the group at hand that was looked at
}

const (
	// settleFor is how long one call goes on.
	settleFor = 5 * time.Second
	// settlePage is how many rooms are looked at in one go, settleAtOnce how many
	// groups' answers are waited for together.
	settlePage   = 500
	settleAtOnce = 64
)

// settle goes on with the newest placement, for a while or until all is done.
func (s *settler) settle(ctx context.Context, user string) (SettleInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*settleFor)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := s.node.dir.state()
	groups := dir.Groups()
	if dir.Placement() == 0 {
		return SettleInfo{Settled: true}, nil
	}
	if s.done.Placement != dir.Placement() || s.done.Settled {
		s.done, s.at = SettleInfo{Placement: dir.Placement()}, room.ID{}
	}
	s.done.Of = len(groups)
	for until := time.Now().Add(settleFor); s.done.Groups < len(groups); {
		if time.Now().After(until) {
			return s.done, nil
		}
		if err := s.page(ctx, groups[s.done.Groups].ID); err != nil {
			return s.done, err
		}
	}
	change := directory.Change{Settle: s.done.Placement}
	if err := s.node.dir.change(ctx, fmt.Sprint("settle-", s.done.Placement), user, change); err != nil {
		return s.done, err
	}
	s.done.Settled = true
	return s.done, nil
}

// displaced is a page of a group's rooms: those that belong in another group.
type displaced struct {
	Rooms []displacedRoom `json:"rooms"`
	// LastApp and LastRoom are the last that was looked at; "" = there are no more.
	LastApp  string `json:"last_app"`
	LastRoom string `json:"last_room"`
}

type displacedRoom struct {
	App   string `json:"app"`
	Room  string `json:"room"`
	Group uint32 `json:"group"`
}

// page settles the next rooms of a group.
func (s *settler) page(ctx context.Context, group uint32) error {
	n, placement := s.node, s.done.Placement
	if s.at == (room.ID{}) {
		bind := room.Command{ID: room.ID{App: directory.SystemApp, Room: "placement"}, Kind: room.Claim, Placement: placement}
		if _, err := n.proposeWait(ctx, group, bind); err != nil {
			return err
		}
	}
	d, err := s.displaced(ctx, group, placement)
	if err != nil {
		return err
	}
	for len(d.Rooms) > 0 {
		some := d.Rooms[:min(settleAtOnce, len(d.Rooms))]
		d.Rooms = d.Rooms[len(some):]
		errs := make(chan error, len(some))
		for _, r := range some {
			tell := room.Command{ID: room.ID{App: r.App, Room: r.Room}, Kind: room.Elsewhere, Placement: placement, Group: group}
			go func() {
				_, err := n.proposeWait(ctx, r.Group, tell)
				errs <- err
			}()
		}
		for range some {
			if e := <-errs; e != nil {
				err = e
			}
		}
		if err != nil {
			return err
		}
	}
	if s.at = (room.ID{App: d.LastApp, Room: d.LastRoom}); s.at == (room.ID{}) {
		s.done.Groups++
	}
	return nil
}

// displaced asks the leader of a group for the next page of its rooms.
func (s *settler) displaced(ctx context.Context, group uint32, placement uint64) (d displaced, err error) {
	leader, err := s.node.leader(group)
	if err != nil {
		return d, err
	}
	args := []string{fmt.Sprint(group), fmt.Sprint(placement), s.at.App, s.at.Room}
	var answer []byte
	if leader == s.node.cfg.Node {
		answer, err = s.node.displacedHere(ctx, args)
	} else {
		var f *wire.Frame
		f, err = s.node.links.get(leader).ask(ctx, &wire.Frame{Body: &wire.Frame_Query{Query: &wire.Query{What: queryDisplacedHere, Args: args}}})
		answer = f.GetAnswer().GetJson()
	}
	if e := wire.AsError(err); err != nil && e.Code == wire.CodeNotLeader {
		s.node.hints.set(group, e.Node)
	}
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(answer, &d)
}

// displacedHere looks for rooms that belong elsewhere in a group that this node
// leads, and that is bound to the placement.
func (n *Node) displacedHere(ctx context.Context, args []string) ([]byte, error) {
	if len(args) != 4 {
		return nil, wire.Errorf(wire.CodeBadRequest, "%q takes 4 arguments, not %d", queryDisplacedHere, len(args))
	}
	group, err := strconv.ParseUint(args[0], 10, 32)
	placement, err2 := strconv.ParseUint(args[1], 10, 64)
	if err != nil || err2 != nil {
		return nil, wire.Errorf(wire.CodeBadRequest, "%q is no group and placement", args[:2])
	}
	dir := n.dir.state()
	if dir.Placement() != placement {
		return nil, wire.Errorf(wire.CodeStale, "placement %d is to be settled, this node knows of %d", placement, dir.Placement()).After(leaderAgain)
	}
	if err := n.host.Barrier(ctx, uint32(group)); err != nil {
		return nil, err
	}
	var rooms []room.Info
	err = n.host.Read(uint32(group), func(r consensusReader) {
		rooms = room.ListAll(r, room.ID{App: args[2], Room: args[3]}, settlePage)
	})
	if err != nil {
		return nil, err
	}
	d := displaced{Rooms: []displacedRoom{}}
	for _, r := range rooms {
		to, err := dir.Locate(r.ID.App, r.ID.Room)
		if err != nil { // it may get a place again, and must be found then
			return nil, wire.Errorf(wire.CodeConflict, "%v is in group %d and belongs nowhere: %v", r.ID, group, err)
		}
		if to != uint32(group) {
			d.Rooms = append(d.Rooms, displacedRoom{r.ID.App, r.ID.Room, to})
		}
	}
	if len(rooms) == settlePage {
		last := rooms[len(rooms)-1].ID
		d.LastApp, d.LastRoom = last.App, last.Room
	}
	return json.Marshal(d)
}
