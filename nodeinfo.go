package starling

import (
	"context"

	"github.com/starling-im/starling/mesh"
)

// NodeHere is what a node says of itself.
type NodeHere struct {
	// CertificateUntil is the end of its certificate, Unix ms.
	CertificateUntil int64 `json:"certificate_until"`
	// Out is how far it is on its way out.
	Out DrainInfo `json:"out"`
	// Doubts are its replicas that may lack what they had acknowledged, since its
	// disk is an older copy or lost something: they have no say until they have
	// caught up.
	Doubts []DoubtInfo `json:"doubts"`
}

// DoubtInfo is a replica that neither votes nor leads, and why.
type DoubtInfo struct {
	Group uint32 `json:"group"`
	Why   string `json:"why"`
	// Last is the newest entry of its log. The doubt ends when that has come to Tip,
	// which is 0 as long as not enough others say what the group has.
	Last uint64 `json:"last"`
	Tip  uint64 `json:"tip"`
}

// queryNodeHere asks a node what it says of itself.
const queryNodeHere = "node.here"

func (n *Node) nodeHere() NodeHere {
	h := NodeHere{CertificateUntil: n.credentials.identity().Cert.Leaf.NotAfter.UnixMilli(), Out: n.drain.info(), Doubts: []DoubtInfo{}}
	for _, s := range n.host.Status() {
		if s.Doubt != "" {
			h.Doubts = append(h.Doubts, DoubtInfo{s.ID, s.Doubt, s.LastIndex, s.Tip})
		}
	}
	return h
}

// askHere is what a node says of itself, nil if it does not.
func (n *Node) askHere(ctx context.Context, node string) *NodeHere {
	if node == n.cfg.Node {
		h := n.nodeHere()
		return &h
	}
	m, ok := n.mesh.View().Member(node)
	if !ok || !m.Linked || m.State == mesh.Left {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, gatherWithin)
	defer cancel()
	h := new(NodeHere)
	if n.askNode(ctx, node, h, queryNodeHere) != nil {
		return nil // it has gone, or is of a release that does not know the question
	}
	return h
}
