package starling

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/wire"
)

// TokenInfo is one row of the answer to the query "join.tokens", and the answer to
// "join.tokens.create", which alone has the Token.
type TokenInfo struct {
	Token   string `json:"token,omitempty"` // the secret text
	ID      string `json:"id"`
	Region  string `json:"region"`
	Signer  bool   `json:"signer,omitzero"`
	Expires int64  `json:"expires"` // Unix ms
	// Node is who came in with it.
	Node string `json:"node,omitempty"`
}

// NodeInfo is the answer to the query "node.show".
type NodeInfo struct {
	MemberInfo
	Key     string   `json:"key,omitempty"` // base64 of its public key's PKIX form
	Signer  bool     `json:"signer"`
	Revoked bool     `json:"revoked"`
	Voter   []uint32 `json:"voter"` // the groups in which it has a vote
	Learner []uint32 `json:"learner,omitempty"`
	// Stranded are those of a revoked node's groups that have no quorum without it.
	Stranded []uint32 `json:"stranded,omitempty"`
	// Here is missing where the node does not answer.
	Here *NodeHere `json:"here,omitempty"`
}

// KeysInfo is the answer to the queries "keys" and "keys.step".
type KeysInfo struct {
	// Version goes up by three with each rotation: the next key is made known, used,
	// and the old one forgotten.
	Version uint64 `json:"version"`
	// Rotating: a rotation has begun and is not at its end.
	Rotating bool `json:"rotating"`
	// Waiting are the members that are alive and have yet to hear of this version.
	Waiting []string `json:"waiting"`
}

// What operators may ask of who belongs to the mesh. The first argument of those that
// change something is an id that the asker makes up.
const (
	queryTokens      = "join.tokens"
	queryTokenCreate = "join.tokens.create" // ID REGION SECONDS [signer]
	queryTokenDelete = "join.tokens.delete" // ID TOKEN
	queryNode        = "node.show"          // NODE
	queryRevoke      = "node.revoke"        // ID NODE
	queryKeys        = "keys"
	queryKeysStep    = "keys.step" // VERSION: take the next step after that version
)

var admissions = map[string]arity{
	queryTokens: {0, 0}, queryTokenCreate: {3, 4}, queryTokenDelete: {2, 2}, queryNode: {1, 1}, queryRevoke: {2, 2},
	queryKeys: {0, 0}, queryKeysStep: {1, 1},
}

// admissionQuery does what an operator asks about who belongs to the mesh; ok is false if
// it is nothing of this.
func (n *Node) admissionQuery(ctx context.Context, p relay.Peer, q *wire.Query) (answer []byte, ok bool, err error) {
	if p.Node != "" {
		return n.admissionHere(ctx, p.Node, q)
	}
	bounds, ok := admissions[q.What]
	if !ok {
		return nil, false, nil
	}
	if err := bounds.check(p, q); err != nil {
		return nil, true, err
	}
	a := q.Args
	var result any
	switch q.What {
	case queryTokens:
		result = n.tokens()
	case queryTokenCreate:
		result, err = n.createToken(ctx, p.User, a)
	case queryTokenDelete:
		err = n.dir.change(ctx, a[0], p.User, directory.Change{DeleteToken: a[1]})
		result = n.tokens()
	case queryNode:
		result, err = n.nodeInfo(ctx, a[0])
	case queryRevoke:
		if err = n.dir.change(ctx, a[0], p.User, directory.Change{RevokeNode: a[1]}); err == nil {
			n.log.Warn("audit: revoked a node", "peer", a[1], "by", p.User)
			result, err = n.nodeInfo(ctx, a[1])
		}
	case queryKeys:
		result = n.keys()
	case queryKeysStep:
		result, err = n.stepKeys(ctx, p.User, a[0])
	}
	if err != nil {
		return nil, true, err
	}
	answer, err = json.Marshal(result)
	return answer, true, err
}

func (n *Node) tokens() []TokenInfo {
	all := []TokenInfo{}
	for _, t := range n.dir.state().Tokens() {
		all = append(all, TokenInfo{ID: t.ID, Region: t.Region, Signer: t.Signer, Expires: t.Expires, Node: t.Node})
	}
	return all
}

// maxTokenLife bounds the life of a join token.
const maxTokenLife = 7 * 24 * time.Hour

func (n *Node) createToken(ctx context.Context, user string, args []string) (TokenInfo, error) {
	life, err := time.ParseDuration(args[2] + "s")
	if err != nil || life < time.Second || life > maxTokenLife {
		return TokenInfo{}, wire.Errorf(wire.CodeBadRequest, "a token cannot be good for %v, but for a second to a week", life)
	}
	region, signer := args[1], len(args) > 3 && args[3] == "signer"
	if !n.hasRegion(ctx, region) {
		return TokenInfo{}, wire.Errorf(wire.CodeNotFound, "the cluster has no region %q; edge-node cluster region adds one", region)
	}
	t := identity.NewToken(n.cfg.Cluster, region, identity.PinOf(n.credentials.identity().Root))
	now := time.Now()
	put := directory.Token{ID: t.ID, Region: region, Hash: t.Hash(), Signer: signer, Made: now.UnixMilli(), Expires: now.Add(life).UnixMilli()}
	if err := n.dir.change(ctx, args[0], user, directory.Change{PutToken: put}); err != nil {
		return TokenInfo{}, err
	}
	n.log.Warn("audit: made a join token", "token", t.ID, "region", region, "signer", signer, "life", life.String(), "by", user)
	return TokenInfo{Token: t.String(), ID: t.ID, Region: region, Signer: signer, Expires: put.Expires}, nil
}

func (n *Node) nodeInfo(ctx context.Context, id string) (NodeInfo, error) {
	d, ok := n.dir.state().Node(id)
	if !ok {
		return NodeInfo{}, wire.Errorf(wire.CodeNotFound, "there is no node %q", id)
	}
	info := NodeInfo{
		MemberInfo: MemberInfo{ID: d.ID, Region: d.Region, Addr: d.Addr, State: mesh.Unknown.String()}, Key: d.Key, Signer: d.Signer,
		Revoked: n.dir.state().IsRevoked(id), Voter: []uint32{},
	}
	for _, m := range n.membersHere() {
		if m.ID == id {
			info.MemberInfo = m
		}
	}
	for _, g := range append(n.dir.state().Groups(), directory.Group{Now: n.root.replicas()}) {
		r := g.Replicas()
		if slices.Contains(r.Voters, id) {
			info.Voter = append(info.Voter, g.ID)
			if left := n.standing(r.Voters); info.Revoked && left <= len(r.Voters)/2 {
				info.Stranded = append(info.Stranded, g.ID)
			}
		}
		if slices.Contains(r.Learners, id) {
			info.Learner = append(info.Learner, g.ID)
		}
	}
	slices.Sort(info.Voter)
	if !info.Revoked {
		info.Here = n.askHere(ctx, id)
	}
	return info, nil
}

// standing counts the voters that can be reached and are not revoked.
func (n *Node) standing(voters []string) (count int) {
	for _, v := range voters {
		if n.reachable(v) && !n.dir.state().IsRevoked(v) {
			count++
		}
	}
	return count
}

func (n *Node) keys() KeysInfo {
	k := n.dir.state().GossipKeys()
	info := KeysInfo{Version: k.Version, Rotating: k.Version%3 != 0, Waiting: []string{}}
	for _, m := range n.mesh.View().Members {
		if m.ID != n.cfg.Node && m.State.Here() && m.Keys != k.Version {
			info.Waiting = append(info.Waiting, m.ID)
		}
	}
	return info
}

// stepKeys takes the next step of a rotation, once all members that are alive have
// taken the last one: what one of them sends the others understand at each moment.
func (n *Node) stepKeys(ctx context.Context, user, after string) (KeysInfo, error) {
	info := n.keys()
	version, err := json.Number(after).Int64()
	if err != nil {
		return info, wire.Errorf(wire.CodeBadRequest, "%q is no version of keys", after)
	}
	if uint64(version) != info.Version || len(info.Waiting) > 0 {
		return info, nil
	}
	now := n.dir.state().GossipKeys().Keys
	if len(now) == 0 {
		now = []string{base64.StdEncoding.EncodeToString(n.secret)}
	}
	next := directory.GossipKeys{Version: info.Version + 1}
	switch info.Version % 3 {
	case 0: // make the next one known
		key := make([]byte, 32)
		rand.Read(key)
		next.Keys = append(now[:1:1], base64.StdEncoding.EncodeToString(key))
	case 1: // use it
		next.Keys = []string{now[1], now[0]}
	case 2: // forget the old one
		next.Keys = now[:1]
	}
	if err := n.dir.change(ctx, "keys/"+rand.Text(), user, directory.Change{PutGossip: next}); err != nil && wire.Code(err) != wire.CodeConflict {
		return info, err
	}
	n.log.Warn("audit: the keys of gossip change", "version", next.Version, "by", user)
	return n.keys(), nil
}
