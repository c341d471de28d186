package directory

import (
	"encoding/base64"
	"maps"
	"slices"
)

// The bounds of who may come in.
const (
	maxTokens  = 1024
	maxRevoked = 4096
	// maxGossipKeys bounds the keys of gossip that are in use at once: that of
	// now and, while it is replaced, the next.
	maxGossipKeys  = 3
	gossipKeyBytes = 32
	// tokenKept is for how long after its end a token is remembered, in ms, so that
	// whoever comes with it learns why it is of no use.
	tokenKept = 24 * 60 * 60 * 1000
)

// Token lets one new node in. The directory keeps the hash of its secret only.
type Token struct {
	ID     string `json:"id"`
	Region string `json:"region"`
	Hash   []byte `json:"hash"`
	// Signer: the node gets the key of its region's authority too.
	Signer bool `json:"signer,omitzero"`
	// Made and Expires are Unix ms.
	Made    int64 `json:"made"`
	Expires int64 `json:"expires"`
	// Node is who came in with it, "" as long as nobody has; set by the State.
	Node string `json:"node,omitempty"`
}

// Join lets a node in by a token.
type Join struct {
	Token string `json:"token"`
	At    int64  `json:"at"` // Unix ms, by the clock of the node that proved the secret
	Node  Node   `json:"node"`
}

// GossipKeys are the keys that nodes know, in base64: gossip is sent with the
// first, and understood with each. Version goes up by one with every change.
type GossipKeys struct {
	Version uint64   `json:"version"`
	Keys    []string `json:"keys"`
}

// admitted reports whether n says what formats before 4 have no words for.
func (n Node) admitted() bool { return n.Key != "" || n.Signer || n.Leaving }

// Token returns a token by its id.
func (s *State) Token(id string) (Token, bool) {
	t, ok := s.tokens[id]
	return t, ok
}

// Tokens returns all tokens by id, also those that are spent or too old.
func (s *State) Tokens() []Token { return sortedValues(s.tokens) }

// Node returns a node by its id.
func (s *State) Node(id string) (Node, bool) {
	n, ok := s.nodes[id]
	return n, ok
}

// Revoked returns the ids of the nodes whose certificates are good for nothing any
// more, in order.
func (s *State) Revoked() []string { return slices.Sorted(maps.Keys(s.revoked)) }

// IsRevoked reports whether a node was revoked.
func (s *State) IsRevoked(id string) bool { return s.revoked[id] }

// GossipKeys returns the keys of gossip, none as long as those of the nodes' own
// configuration hold.
func (s *State) GossipKeys() GossipKeys { return s.gossip }

func (s *State) putToken(t Token) *Refusal {
	if _, ok := s.tokens[t.ID]; ok {
		return refuse(CodeConflict, "there is a token %q already", t.ID)
	}
	if t.Node != "" {
		return refuse(CodeBadRequest, "token %q is new, and spent", t.ID)
	}
	s.tokens = maps.Clone(s.tokens)
	maps.DeleteFunc(s.tokens, func(_ string, old Token) bool { return old.Expires+tokenKept < t.Made })
	s.tokens[t.ID] = t
	return nil
}

func (s *State) deleteToken(id string) *Refusal {
	if _, ok := s.tokens[id]; !ok {
		return refuse(CodeNotFound, "there is no token %q", id)
	}
	s.tokens = maps.Clone(s.tokens)
	delete(s.tokens, id)
	return nil
}

// join lets a node in. A node that asks again with its token, since the answer was
// lost, is the same node if it has the same key.
func (s *State) join(j Join) *Refusal {
	t, ok := s.tokens[j.Token]
	is, taken := s.nodes[j.Node.ID]
	switch {
	case !ok:
		return refuse(CodeNotFound, "there is no token %q", j.Token)
	case s.revoked[j.Node.ID]:
		return refuse(CodeConflict, "node %q was revoked: give the new one another id", j.Node.ID)
	case j.Node.Key == "":
		return refuse(CodeBadRequest, "node %q has no key", j.Node.ID)
	case t.Node == j.Node.ID && taken && is.Key == j.Node.Key:
		// again
	case t.Node != "":
		return refuse(CodeJoinUsed, "the token was used by node %q", t.Node)
	case j.At >= t.Expires:
		return refuse(CodeJoinExpired, "the token has run out")
	case t.Region != j.Node.Region:
		return refuse(CodeJoinRegion, "the token is for region %q, not for %q", t.Region, j.Node.Region)
	case taken:
		return refuse(CodeConflict, "there is a node %q already: give the new one another id", j.Node.ID)
	}
	j.Node.Signer = t.Signer
	t.Node = j.Node.ID
	s.tokens, s.nodes = maps.Clone(s.tokens), maps.Clone(s.nodes)
	s.tokens[t.ID], s.nodes[j.Node.ID] = t, j.Node
	return nil
}

func (s *State) revoke(id string) *Refusal {
	if _, ok := s.nodes[id]; !ok {
		return refuse(CodeNotFound, "there is no node %q", id)
	}
	s.revoked = maps.Clone(s.revoked)
	s.revoked[id] = true
	return nil
}

// leave says that a node is to go for good, or that it is not.
func (s *State) leave(id string, leaving bool) *Refusal {
	n, ok := s.nodes[id]
	if !ok {
		return refuse(CodeNotFound, "there is no node %q", id)
	}
	n.Leaving = leaving
	s.nodes = maps.Clone(s.nodes)
	s.nodes[id] = n
	return nil
}

func (s *State) putGossip(k GossipKeys) *Refusal {
	if k.Version != s.gossip.Version+1 {
		return refuse(CodeConflict, "the keys of gossip are of version %d by now", s.gossip.Version)
	}
	s.gossip = k
	return nil
}

// maxKeyBytes bounds a node's public key: a point of P-256 takes 124.
const maxKeyBytes = 256

func checkKey(n Node) *Refusal {
	if b, err := base64.StdEncoding.DecodeString(n.Key); err != nil || len(b) > maxKeyBytes {
		return refuse(CodeBadRequest, "node %q has a key that is not base64 of at most %d bytes", n.ID, maxKeyBytes)
	}
	return nil
}

// checkAdmission checks who may come in.
func (s *State) checkAdmission() *Refusal {
	for _, t := range sortedValues(s.tokens) {
		if r := first(checkName("token", t.ID, nameBytes), checkRegion(t.Region)); r != nil {
			return r
		}
		if len(t.Hash) != 32 || t.Made <= 0 || t.Expires <= t.Made {
			return refuse(CodeBadRequest, "token %q needs the hash of its secret and a time", t.ID)
		}
	}
	for _, id := range s.Revoked() {
		if r := checkName("node", id, nameBytes); r != nil {
			return r
		}
	}
	if s.gossip.Version > 0 && (len(s.gossip.Keys) == 0 || len(s.gossip.Keys) > maxGossipKeys) {
		return refuse(CodeTooMany, "%d keys of gossip, not 1 to %d", len(s.gossip.Keys), maxGossipKeys)
	}
	for _, k := range s.gossip.Keys {
		if b, err := base64.StdEncoding.DecodeString(k); err != nil || len(b) != gossipKeyBytes {
			return refuse(CodeBadRequest, "a key of gossip is not base64 of %d bytes", gossipKeyBytes)
		}
	}
	return nil
}
