package starling

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// RecoverInfo says what is left of a group that lost a quorum of its voters, in
// the answer to the query "groups.recover". Without the consent to a loss nothing
// has happened yet.
type RecoverInfo struct {
	Group  uint32   `json:"group"`
	Voters []string `json:"voters"`
	// Here are the voters that answer and can vote, Needed how many would have to.
	Here   []string `json:"voters_here"`
	Needed int      `json:"voters_needed"`
	// Survivor has the newest log of all that answer: the group goes on with it.
	Survivor Survivor   `json:"survivor"`
	Others   []Survivor `json:"others,omitempty"`
	// Epoch is that of the group now, Recovered whether that is a new one.
	Epoch     uint64 `json:"epoch"`
	Recovered bool   `json:"recovered"`
}

// Survivor is a replica of a group.
type Survivor struct {
	Node   string   `json:"node"`
	Region string   `json:"region"`
	Epoch  uint64   `json:"epoch"`
	Voters []string `json:"voters"` // of the newest configuration that it knows
	// Last and Term name the last entry of its log; Applied is the last one in its
	// rooms, and LastCommand when the newest command among those was sent, Unix ms.
	Last        uint64 `json:"last_index"`
	Term        uint64 `json:"last_term"`
	Committed   uint64 `json:"committed"`
	Applied     uint64 `json:"applied"`
	LastCommand int64  `json:"last_command_ms,omitzero"`
	Rooms       int    `json:"rooms"`
	// Doubt says why it does not vote.
	Doubt   string `json:"doubt,omitempty"`
	Removed bool   `json:"removed,omitempty"`
}

// Votes reports whether it is one of the voters.
func (s Survivor) Votes() bool { return slices.Contains(s.Voters, s.Node) }

// blank reports whether it has only its first configuration, or not even that, and so
// knows nothing of the group.
func (s Survivor) blank() bool { return s.Last <= 1 }

const (
	queryRecover = "groups.recover" // GROUP [accept-loss SURVIVOR EPOCH]

	// For other nodes; acceptLoss as the second argument lets the node's replica
	// go on alone.
	queryRecoverHere = "groups.recover.here" // GROUP [accept-loss]
	acceptLoss       = "accept-loss"
)

// recover answers the queries above; ok is false if it is neither of them. It
// needs no directory, whose group may be the one that is lost.
func (n *Node) recover(ctx context.Context, p relay.Peer, q *wire.Query) (answer []byte, ok bool, err error) {
	if q.What != queryRecover && q.What != queryRecoverHere {
		return nil, false, nil
	}
	here := q.What == queryRecoverHere
	switch {
	case here != (p.Node != ""):
		return nil, false, nil
	case !here && !p.Operator:
		return nil, true, wire.Errorf(wire.CodeForbidden, "%q needs a token of an operator", q.What)
	}
	consent, err := consentIn(q.Args, here)
	if err != nil {
		return nil, true, err
	}
	id, err := strconv.ParseUint(q.Args[0], 10, 32)
	if err != nil {
		return nil, true, wire.Errorf(wire.CodeBadRequest, "%q is no group", q.Args[0])
	}
	group := uint32(id)
	var result any
	switch {
	case here && consent != nil:
		result, err = n.recoverHere(group)
	case here:
		result = n.survivorsHere(group)
	default:
		result, err = n.recoverGroup(ctx, group, consent)
	}
	if err != nil {
		return nil, true, err
	}
	answer, err = json.Marshal(result)
	return answer, true, err
}

// consent is an operator's consent to go on with a replica as it was when it was
// shown: in that epoch, with no other one.
type consent struct {
	survivor string
	epoch    uint64
}

// consentIn reads the arguments of the queries above; nil = there is no consent.
func consentIn(args []string, here bool) (*consent, error) {
	switch {
	case len(args) == 1:
		return nil, nil
	case here && len(args) == 2 && args[1] == acceptLoss:
		return &consent{}, nil
	case !here && len(args) == 4 && args[1] == acceptLoss:
		if epoch, err := strconv.ParseUint(args[3], 10, 64); err == nil {
			return &consent{args[2], epoch}, nil
		}
	}
	return nil, wire.Errorf(wire.CodeBadRequest, "a recovery takes a group and perhaps %s, the survivor and its epoch, not %q", acceptLoss, args)
}

// byLog compares logs: the newer one is the greater.
func byLog(a, b Survivor) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Term, b.Term), cmp.Compare(a.Last, b.Last))
}

// survivorsHere describes this node's replica of a group, if it has one.
func (n *Node) survivorsHere(group uint32) []Survivor {
	found := []Survivor{}
	for _, s := range n.host.Status() {
		if s.ID != group {
			continue
		}
		is := Survivor{
			Node: n.cfg.Node, Region: n.cfg.Region, Epoch: s.Epoch, Voters: s.Voters, Last: s.LastIndex, Term: s.LastTerm,
			Committed: s.Commit, Applied: s.Applied, Doubt: s.Doubt, Removed: s.Removed,
		}
		if at, ok := n.host.LastStamp(group); ok {
			is.LastCommand = at.UnixMilli()
		}
		// A replica in doubt is not read; it has as many rooms as it has.
		_ = n.host.Read(group, func(r consensusReader) { is.Rooms = room.CountRooms(r) })
		found = append(found, is)
	}
	return found
}

// recoverHere lets this node's replica go on alone.
func (n *Node) recoverHere(group uint32) ([]Survivor, error) {
	_, err := n.host.Recover(group, func(epoch uint64) []byte {
		c := room.Command{ID: room.ID{App: directory.SystemApp, Room: "epoch"}, Kind: room.Renew, Placement: epoch}
		return c.Append(nil)
	})
	return n.survivorsHere(group), err
}

// recoverGroup looks what is left of a group, and lets it go on with that if an
// operator accepts the loss. Where a quorum of voters is there nothing needs to
// be recovered. A consent is good for one recovery, also if it comes twice since the
// answer was lost.
func (n *Node) recoverGroup(ctx context.Context, group uint32, accepts *consent) (RecoverInfo, error) {
	id := strconv.FormatUint(uint64(group), 10)
	all := gather(ctx, n, &wire.Query{What: queryRecoverHere, Args: []string{id}}, n.survivorsHere(group))
	info, err := leftOf(group, all)
	if err != nil {
		return info, err
	}
	if accepts != nil && info.Survivor.Node == accepts.survivor && info.Epoch > accepts.epoch {
		info.Recovered = true
		return info, nil
	}
	if len(info.Here) >= info.Needed {
		return info, wire.Errorf(wire.CodeConflict, "group %d has nothing to recover: %d of its %d voters are there (%v), and %d are enough", group, len(info.Here), len(info.Voters), info.Here, info.Needed)
	}
	for _, v := range info.Voters {
		said := slices.ContainsFunc(all, func(s Survivor) bool { return s.Node == v })
		if m, _ := n.mesh.View().Member(v); m.State.Here() && m.Linked && !said && !n.denies(ctx, v, id) {
			return info, wire.Errorf(wire.CodeUnavailable, "voter %q of group %d is alive and does not answer: ask again", v, group).After(time.Second)
		}
	}
	switch {
	case accepts == nil:
		return info, nil
	case *accepts != consent{info.Survivor.Node, info.Epoch}:
		return info, wire.Errorf(wire.CodeConflict, "group %d would go on with what %s has, in place of epoch %d, and not with what was accepted: look again", group, info.Survivor.Node, info.Epoch)
	}
	q := &wire.Query{What: queryRecoverHere, Args: []string{id, acceptLoss}}
	var is []Survivor
	if info.Survivor.Node == n.cfg.Node {
		is, err = n.recoverHere(group)
	} else {
		var f *wire.Frame
		if f, err = n.links.get(info.Survivor.Node).ask(ctx, &wire.Frame{Body: &wire.Frame_Query{Query: q}}); err == nil {
			err = json.Unmarshal(f.GetAnswer().GetJson(), &is)
		}
	}
	if err != nil {
		return info, err
	}
	if info.Recovered = len(is) == 1 && is[0].Epoch > info.Epoch; !info.Recovered {
		return info, wire.Errorf(wire.CodeUnavailable, "%s does not say what became of group %d: ask again", info.Survivor.Node, group)
	}
	info.Epoch = is[0].Epoch
	n.log.Warn("a group was recovered with loss", "group", group, "survivor", info.Survivor.Node, "epoch", info.Epoch, "voters", info.Voters)
	return info, nil
}

// denies reports whether a node says that it has no replica of a group.
func (n *Node) denies(ctx context.Context, node, group string) bool {
	ctx, cancel := context.WithTimeout(ctx, gatherWithin)
	defer cancel()
	f, err := n.links.get(node).ask(ctx, &wire.Frame{Body: &wire.Frame_Query{Query: &wire.Query{What: queryRecoverHere, Args: []string{group}}}})
	var is []Survivor
	return err == nil && json.Unmarshal(f.GetAnswer().GetJson(), &is) == nil && len(is) == 0
}

// leftOf sorts what the replicas say of themselves: the newest log first, and
// which of the voters that it names are there. Logs of an earlier epoch do not
// count.
func leftOf(group uint32, all []Survivor) (RecoverInfo, error) {
	all = slices.DeleteFunc(all, func(s Survivor) bool { return s.blank() || s.Removed })
	slices.SortFunc(all, func(a, b Survivor) int { return cmp.Or(byLog(b, a), cmp.Compare(a.Node, b.Node)) })
	if len(all) == 0 {
		return RecoverInfo{Group: group}, wire.Errorf(wire.CodeNotFound, "no node that answers has anything of group %d", group)
	}
	info := RecoverInfo{Group: group, Survivor: all[0], Others: all[1:], Voters: all[0].Voters, Epoch: all[0].Epoch, Here: []string{}}
	info.Needed = len(info.Voters)/2 + 1
	for _, s := range all {
		if slices.Contains(info.Voters, s.Node) && s.Doubt == "" && s.Epoch == info.Epoch {
			info.Here = append(info.Here, s.Node)
		}
	}
	return info, nil
}

// Loss says in words what may be lost if the group goes on so.
func (i RecoverInfo) Loss() []string {
	s := i.Survivor
	at := "at a time that its log does not say"
	if s.LastCommand > 0 {
		at = "sent at " + time.UnixMilli(s.LastCommand).UTC().Format(time.RFC3339)
	}
	text := []string{
		fmt.Sprintf("%s has the log up to entry %d and knows of entry %d that it is committed; the newest command in its %d rooms is of entry %d at most, %s", s.Node, s.Last, s.Committed, s.Rooms, s.Applied, at),
		"what others acknowledged after that is lost, also where somebody has seen it",
		"rooms of the group get another epoch, so that clients which followed them start again",
		fmt.Sprintf("the other voters (%v) must never come back as they were: one that does is ignored, and made anew where the group wants a replica", slices.DeleteFunc(slices.Clone(i.Voters), func(v string) bool { return v == s.Node })),
	}
	if s.Doubt != "" {
		text = append(text, fmt.Sprintf("%s says of itself: %s", s.Node, s.Doubt))
	}
	return text
}
