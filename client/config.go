package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/quic-go/quic-go"
)

// Config says where a Client finds its nodes and who it is.
type Config struct {
	// Addrs are nodes as host:port, the preferred one first. Each time that
	// the client connects it tries them in this order.
	Addrs []string
	// Token returns what proves the user. It is called for the first connection, and
	// when a node does not take what the last session gave to come back with.
	Token func(context.Context) (string, error)
	// RootCAs are whom to trust for the nodes' certificates; nil = the system's.
	RootCAs *x509.CertPool
	// ServerName is what those certificates are for; "" = the host in Addrs.
	ServerName string
	// Device tells the devices of one user apart; it may be empty.
	Device string
	// Agent is the program's name and version, for the nodes' logs.
	Agent string
	// InFlight bounds the open sends; the node's own bound is above it
	// (default: wire.InFlight).
	InFlight int
	// Heartbeat is the silence after which a client that follows rooms makes
	// sure that its node is still there (default 2 s; negative = never, then
	// only QUIC's idle timeout tells). It costs a phone some battery.
	Heartbeat time.Duration
	// Transport is QUIC (the default) or WebSocket.
	Transport string
	// Dial opens a connection over QUIC; nil = over a UDP socket of its own.
	Dial func(ctx context.Context, addr string, t *tls.Config, q *quic.Config) (*quic.Conn, error)
	// Log hears of connections lost and made; nil = nobody.
	Log *slog.Logger

	// What nodes gave to make the next connection cheaper, to any of them: TLS
	// resumes its session, and the address need not be proved again.
	tickets tls.ClientSessionCache
	proofs  quic.TokenStore
}

// remembered bounds the names of nodes for which these are kept, and the proofs
// for each.
const remembered = 16

// The transports.
const (
	QUIC      = "quic"
	WebSocket = "websocket"
)

func (c Config) check() error {
	if len(c.Addrs) == 0 {
		return &ConfigError{"Addrs", "must name at least one node"}
	}
	for _, a := range c.Addrs {
		if _, port, err := net.SplitHostPort(a); err != nil || port == "" {
			return &ConfigError{"Addrs", "must be host:port, not " + a}
		}
	}
	switch {
	case c.Token == nil:
		return &ConfigError{"Token", "must be set"}
	case c.Transport != "" && c.Transport != QUIC && c.Transport != WebSocket:
		return &ConfigError{"Transport", "must be quic or websocket, not " + c.Transport}
	case c.InFlight < 0:
		return &ConfigError{"InFlight", "must not be negative"}
	}
	return nil
}

func (c *Config) fill() {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = heartbeat
	}
	c.tickets = tls.NewLRUClientSessionCache(remembered)
	c.proofs = quic.NewLRUTokenStore(remembered, remembered)
	if c.Agent == "" {
		c.Agent = "starling-go"
	}
}

// How long things may take, and how long to wait before trying again.
const (
	dialWithin  = 3 * time.Second
	dialLonger  = 6 * time.Second // if nobody has let the client in
	helloWithin = 5 * time.Second
	// keepAlive holds the bindings of NATs; idle notices a dead path.
	keepAlive = 5 * time.Second
	idle      = 10 * time.Second
	// A send unanswered for probeAfter makes the client ask whether the node
	// still answers at all, which it must do within probeWithin.
	probeAfter  = 3 * time.Second
	heartbeat   = 2 * time.Second
	probeWithin = 1500 * time.Millisecond

	// avoidFor is how long a node that went mute is not asked while others answer,
	// be it that they are busy: to find out that it still is mute takes dialWithin.
	avoidFor = 10 * time.Second

	reconnectMin, reconnectMax = 50 * time.Millisecond, 2 * time.Second
	// After a refusal to even talk the node has a crowd at its door; each attempt makes it worse.
	busyMin, busyMax = 200 * time.Millisecond, 4 * time.Second
	// Where there is no place for the client it takes others of the user, or of the node, to go.
	fullMin, fullMax   = time.Second, 16 * time.Second
	retryMin, retryMax = 20 * time.Millisecond, time.Second
)

// doubled returns low doubled n times, at most high.
func doubled(n int, low, high time.Duration) time.Duration {
	if n > 16 { // enough for any pair in use, and no overflow
		return high
	}
	return min(low<<n, high)
}

// fullJitter spreads those who lost one node over time: up to doubled.
func fullJitter(n int, low, high time.Duration) time.Duration {
	return rand.N(doubled(n, low, high)) + 1
}

// halfJitter is between a half of doubled and the whole.
func halfJitter(n int, low, high time.Duration) time.Duration {
	d := doubled(n, low, high)
	return d/2 + rand.N(d/2) + 1
}
