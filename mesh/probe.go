package mesh

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/wire"
)

// alpnProbe is the protocol of those who want to know what gets through to here, over
// QUIC and over TLS on TCP: for each byte that comes, a line of JSON goes back. It
// needs no certificate, and tells nothing that the node's own does not tell.
const alpnProbe = "probe/1"

const (
	// probes is how many questions a probe asks, and a node answers, one after the other.
	probes = 5
	// probeWithin bounds all of a probe.
	probeWithin = 3 * time.Second
	// probeLine bounds an answer, in bytes.
	probeLine = 1 << 10
)

// Probed is what a node answered to a probe.
type Probed struct {
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	Region  string `json:"region"`
	Seen    string `json:"seen"` // the address that the node saw
	Time    int64  `json:"time"` // of the node, Unix ns
	// RTT is the least round trip, and Clock how much the node's clock is ahead of ours,
	// by the exchange that took the least (RFC 5905, section 8).
	RTT   time.Duration `json:"-"`
	Clock time.Duration `json:"-"`
}

// ProbeUDP asks the node at an address over QUIC. Who answers is not proved.
func ProbeUDP(ctx context.Context, conn net.PacketConn, addr string) (Probed, error) {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	to, err := new(resolver).resolve(ctx, addr)
	if err != nil {
		return Probed{}, err
	}
	transport := &quic.Transport{Conn: conn}
	defer transport.Close()
	c, err := transport.Dial(ctx, to, probeTLS(), dialConfig())
	if err != nil {
		return Probed{}, fmt.Errorf("mesh: %s: %w", addr, err)
	}
	defer c.CloseWithError(wire.CloseNormal, "")
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return Probed{}, fmt.Errorf("mesh: %s: %w", addr, err)
	}
	deadline, _ := ctx.Deadline()
	_ = s.SetDeadline(deadline)
	return askProbe(s)
}

// ProbeTCP does the same over TLS on TCP.
func ProbeTCP(ctx context.Context, dial func(ctx context.Context, addr string) (net.Conn, error), addr string) (Probed, error) {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	raw, err := dial(ctx, addr)
	if err != nil {
		return Probed{}, err
	}
	defer raw.Close()
	deadline, _ := ctx.Deadline()
	_ = raw.SetDeadline(deadline)
	c := tls.Client(raw, probeTLS())
	if err := c.HandshakeContext(ctx); err != nil {
		return Probed{}, fmt.Errorf("mesh: %s: %w", addr, err)
	}
	return askProbe(c)
}

func probeTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{alpnProbe}, InsecureSkipVerify: true} // what is told is believed by nobody
}

// askProbe asks, and keeps of the answers the one that took the least.
func askProbe(s io.ReadWriter) (best Probed, err error) {
	r := bufio.NewReaderSize(s, probeLine)
	for i := range probes {
		began := time.Now()
		if _, err := s.Write([]byte{'?'}); err != nil {
			return best, err
		}
		line, err := r.ReadSlice('\n')
		if err != nil {
			return best, err
		}
		took := time.Since(began)
		var p Probed
		if err := json.Unmarshal(line, &p); err != nil {
			return best, fmt.Errorf("mesh: no answer to a probe: %w", err)
		}
		if err := p.check(); err != nil { // it is shown to people, and nobody has proved it
			return best, fmt.Errorf("mesh: no answer to a probe: %w", err)
		}
		p.RTT, p.Clock = took, time.Unix(0, p.Time).Sub(began.Add(took/2))
		if i == 0 || p.RTT < best.RTT {
			best = p
		}
	}
	return best, nil
}

func (p Probed) check() error {
	_, err := netip.ParseAddrPort(p.Seen)
	return errors.Join(err, identity.CheckName("cluster", p.Cluster), identity.CheckName("node", p.Node), identity.CheckName("region", p.Region))
}

// answerProbe answers one who sees it from an address.
func (m *Mesh) answerProbe(s io.ReadWriter, seen net.Addr) {
	var question [1]byte
	for range probes {
		if _, err := io.ReadFull(s, question[:]); err != nil {
			return
		}
		line, err := json.Marshal(Probed{Cluster: m.cfg.Cluster, Node: m.cfg.Node, Region: m.cfg.Region, Seen: seen.String(), Time: time.Now().UnixNano()})
		if err != nil {
			return
		}
		if _, err := s.Write(append(line, '\n')); err != nil {
			return
		}
	}
}

// serveProbe answers one that came over QUIC, until it closes.
func (m *Mesh) serveProbe(ctx context.Context, conn *quic.Conn) {
	defer conn.CloseWithError(wire.CloseNormal, "")
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	s, err := conn.AcceptStream(ctx)
	if err != nil {
		return
	}
	deadline, _ := ctx.Deadline()
	_ = s.SetDeadline(deadline)
	m.answerProbe(s, conn.RemoteAddr())
	_ = s.Close()
	select {
	case <-conn.Context().Done():
	case <-ctx.Done():
	}
}

func (m *Mesh) serveProbeTCP(conn *tls.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(probeWithin))
	m.answerProbe(conn, conn.RemoteAddr())
}
