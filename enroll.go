package starling

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/wire"
)

// Enrollment is what a machine says that wants to become a node.
type Enrollment struct {
	V      int    `json:"v"`
	Token  string `json:"token"`
	CSR    []byte `json:"csr"`  // see identity.SigningRequest
	Node   string `json:"node"` // "" = the signer chooses
	Region string `json:"region"`
	// Addr is where others will reach it. An unspecified host stands for the one
	// that the question came from.
	Addr string `json:"addr"`
	From string `json:"from,omitempty"` // set by the node that was asked
}

// Enrolled is the answer: all that a node needs to start.
type Enrolled struct {
	Code    string `json:"code,omitempty"` // of a refusal; then the rest is empty
	Message string `json:"message,omitempty"`

	Cluster   string   `json:"cluster"`
	Node      string   `json:"node"`
	Region    string   `json:"region"`
	Addr      string   `json:"addr"`
	Root      string   `json:"root"`  // PEM
	Chain     string   `json:"chain"` // PEM
	Secret    []byte   `json:"secret"`
	Regions   []string `json:"regions"`
	Directory []string `json:"directory"`
	Seeds     []string `json:"seeds"`
	Survive   string   `json:"survive"`
	// ReplaceAfter and CertLife are those of the signer, which all nodes should share.
	ReplaceAfter string `json:"replace_after"`
	CertLife     string `json:"cert_life"`
	// Copy is the directory as of now, which names those that this node may speak
	// with; see DirectoryFile.
	Copy json.RawMessage `json:"copy"`
	// Authority is that of the region, for a node that will sign too.
	AuthorityChain string `json:"authority_chain,omitempty"`
	AuthorityKey   string `json:"authority_key,omitempty"`
}

// queryEnrollHere hands the question of a machine that wants to become a node to a
// signer.
const queryEnrollHere = "enroll.here"

// enroll answers somebody who has a token and no certificate. Refusals are answers.
func (n *Node) enroll(ctx context.Context, remote net.Addr, request []byte) []byte {
	answer, err := n.enrolled(ctx, remote, request)
	if err != nil {
		e := wire.AsError(err)
		n.log.Warn("audit: refused a node", "remote", remote.String(), "code", e.Code, "reason", e.Message)
		answer, _ = json.Marshal(Enrolled{Code: e.Code, Message: e.Message})
	}
	return answer
}

func (n *Node) enrolled(ctx context.Context, remote net.Addr, request []byte) ([]byte, error) {
	var q Enrollment
	if err := json.Unmarshal(request, &q); err != nil || q.V != 1 {
		return nil, wire.Errorf(wire.CodeBadRequest, "no question to become a node that this release understands")
	}
	select {
	case <-n.ready:
	case <-ctx.Done():
		return nil, wire.Errorf(wire.CodeUnavailable, "this node is starting")
	}
	q.From = remote.String()
	if n.credentials.signer(q.Region) != nil {
		return n.enrollHere(ctx, q)
	}
	text, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	return n.askSigners(ctx, queryEnrollHere, string(text))
}

// askSigners asks the nodes that sign, one after the other, until one answers.
func (n *Node) askSigners(ctx context.Context, what, arg string) ([]byte, error) {
	err := error(wire.Errorf(wire.CodeUnavailable, "no node of this cluster that signs certificates can be reached now"))
	for _, d := range n.dir.state().Nodes() {
		if !d.Signer || d.ID == n.cfg.Node || n.links.get(d.ID) == nil {
			continue
		}
		q := &wire.Query{What: what, Args: []string{arg}}
		answer, askErr := n.links.get(d.ID).ask(ctx, &wire.Frame{Body: &wire.Frame_Query{Query: q}})
		if askErr == nil {
			return answer.GetAnswer().GetJson(), nil
		}
		err = askErr
		if code := wire.Code(err); code != wire.CodeUnavailable && code != wire.CodeNotFound {
			return nil, err // a refusal by one that could have
		}
	}
	return nil, err
}

// enrollHere lets a node in, or returns a *wire.Error.
func (n *Node) enrollHere(ctx context.Context, q Enrollment) ([]byte, error) {
	authority := n.credentials.signer(q.Region)
	if authority == nil {
		return nil, wire.Errorf(wire.CodeNotFound, "%s does not sign for region %q", n.cfg.Node, q.Region)
	}
	token, err := n.provenToken(q)
	if err != nil {
		return nil, err
	}
	key, err := identity.ParseSigningRequest(q.CSR)
	if err != nil {
		return nil, wire.Errorf(wire.CodeBadRequest, "%v", err)
	}
	node := directory.Node{ID: q.Node, Region: q.Region}
	if node.Key, err = publicKey(key); err != nil {
		return nil, err
	}
	if node.Addr, err = advertised(q); err != nil {
		return nil, err
	}
	if node.ID == "" {
		node.ID = n.nameFor(token, node)
	}
	if err := identity.CheckName("node", node.ID); err != nil {
		return nil, wire.Errorf(wire.CodeBadRequest, "%v", err)
	}
	join := directory.Join{Token: token.ID, At: time.Now().UnixMilli(), Node: node}
	if err := n.dir.change(ctx, "join/"+token.ID+"/"+rand.Text(), directory.SystemApp, directory.Change{Join: join}); err != nil {
		return nil, err
	}
	n.log.Warn("audit: let a node in", "peer", node.ID, "region", node.Region, "addr", node.Addr, "token", token.ID, "remote", q.From)
	return n.welcome(authority, node, token, q.CSR)
}

// provenToken is the token of a question, whose secret the asker has.
func (n *Node) provenToken(q Enrollment) (directory.Token, error) {
	t, err := identity.ParseToken(q.Token)
	if err != nil {
		return directory.Token{}, wire.Errorf(wire.CodeBadRequest, "%v", err)
	}
	token, ok := n.dir.state().Token(t.ID)
	if !ok || !identity.Proves(t.Secret, token.Hash) {
		return token, wire.Errorf(wire.CodeJoinForged, "this cluster did not make the token, or took it back")
	}
	if token.Region != q.Region {
		return token, wire.Errorf(wire.CodeJoinRegion, "the token is for region %q, not for %q", token.Region, q.Region)
	}
	return token, nil
}

// advertised is where others will reach a new node.
func advertised(q Enrollment) (string, error) {
	host, port, err := net.SplitHostPort(q.Addr)
	if err != nil || port == "" || port == "0" {
		return "", wire.Errorf(wire.CodeBadRequest, "the address %q is not host:port", q.Addr)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		if host, _, err = net.SplitHostPort(q.From); err != nil {
			return "", wire.Errorf(wire.CodeBadRequest, "the address %q has no host", q.Addr)
		}
	}
	return net.JoinHostPort(host, port), nil
}

// nameFor chooses the id of a new node: REGION-N, the first that is free. One that
// asks again gets the id that it was given.
func (n *Node) nameFor(token directory.Token, node directory.Node) string {
	s := n.dir.state()
	if was, ok := s.Node(token.Node); ok && was.Key == node.Key {
		return was.ID
	}
	for i := 1; ; i++ {
		id := fmt.Sprintf("%s-%d", node.Region, i)
		if _, taken := s.Node(id); !taken && !s.IsRevoked(id) {
			return id
		}
	}
}

// welcome is all that a node needs that was let in.
func (n *Node) welcome(authority *identity.Authority, node directory.Node, token directory.Token, csr []byte) ([]byte, error) {
	chain, err := n.signHere(node.ID, csr)
	if err != nil {
		return nil, err
	}
	now, err := n.dir.encode()
	if err != nil {
		return nil, err
	}
	e := Enrolled{
		Cluster: n.cfg.Cluster, Node: node.ID, Region: node.Region, Addr: node.Addr,
		Root: string(authority.RootPEM()), Chain: string(chain), Secret: n.secret,
		Regions: n.cfg.regions(), Directory: n.root.first, Survive: n.cfg.Survive, Copy: now,
		ReplaceAfter: n.cfg.ReplaceAfter, CertLife: n.cfg.CertLife,
	}
	for _, d := range n.dir.state().Nodes() {
		if d.ID != node.ID {
			e.Seeds = append(e.Seeds, d.Addr)
		}
	}
	e.Seeds = e.Seeds[:min(len(e.Seeds), maxSeeds)]
	if token.Signer {
		key, err := authority.KeyPEM()
		if err != nil {
			return nil, err
		}
		e.AuthorityChain, e.AuthorityKey = string(authority.PEM()), string(key)
	}
	return json.Marshal(e)
}

// maxSeeds bounds the addresses that a new node is given.
const maxSeeds = 16

// hostOf is the host of an address, for a certificate.
func hostOf(addr string) []string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return nil
	}
	return []string{host}
}

// admissionHere answers what nodes ask signers; ok is false if it is nothing of this.
func (n *Node) admissionHere(ctx context.Context, node string, q *wire.Query) (answer []byte, ok bool, err error) {
	if q.What == queryNodeHere {
		answer, err = json.Marshal(n.nodeHere())
		return answer, true, err
	}
	if q.What != querySignHere && q.What != queryEnrollHere && q.What != querySignsHere {
		return nil, false, nil
	}
	if len(q.Args) != 1 {
		return nil, true, wire.Errorf(wire.CodeBadRequest, "%q takes one argument", q.What)
	}
	if q.What == querySignsHere {
		answer, err = json.Marshal(n.credentials.signer(q.Args[0]) != nil)
		return answer, true, err
	}
	if q.What == queryEnrollHere {
		var e Enrollment
		if err := json.Unmarshal([]byte(q.Args[0]), &e); err != nil {
			return nil, true, wire.Errorf(wire.CodeBadRequest, "%v", err)
		}
		answer, err = n.enrollHere(ctx, e)
		return answer, true, err
	}
	csr, err := base64.StdEncoding.DecodeString(q.Args[0])
	if err != nil {
		return nil, true, wire.Errorf(wire.CodeBadRequest, "%v", err)
	}
	chain, err := n.signHere(node, csr)
	if err != nil {
		return nil, true, err
	}
	answer, err = json.Marshal(chain)
	return answer, true, err
}
