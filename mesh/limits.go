package mesh

import (
	"math/rand/v2"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/wire"
)

const (
	// accepters is how many goroutines accept connections: quic-go queues only
	// 32 and refuses the others, which a storm of reconnecting clients fills at once.
	accepters = 16
	// handshakesRetry is how many handshakes may be in progress before new
	// clients must first prove their address, handshakesMax before they are refused.
	handshakesRetry = 256
	handshakesMax   = 1024
	// handshakesFromRetry and handshakesFrom are the same for one IPv4 address
	// or IPv6 /64.
	handshakesFromRetry = 32
	handshakesFrom      = 64
	// handshakeIdle bounds the silence in a handshake, dialWithin all of a dial.
	handshakeIdle = 3 * time.Second
	dialWithin    = 5 * time.Second
	// linkKeepAlive and linkIdle make a peer that died be noticed. Only the
	// dialling side keeps a link alive.
	linkKeepAlive = 5 * time.Second
	linkIdle      = 10 * time.Second
	// headerWithin is how long a new stream may take to say what it is.
	headerWithin = 5 * time.Second
	// backoffMin and backoffMax bound the wait before a link is dialled again.
	backoffMin = 50 * time.Millisecond
	backoffMax = 2 * time.Second
	// joinPause and joinPauseMax bound the wait between attempts to join.
	joinPause    = 500 * time.Millisecond
	joinPauseMax = 5 * time.Second
	// joinAtOnce bounds the nodes that one attempt asks.
	joinAtOnce = 3
	// leaveWithin bounds the farewell of a node that shuts down.
	leaveWithin = 500 * time.Millisecond
	// tellWithin bounds the wait until something new has been sent as often as it is to
	// be: twelve times with 200 nodes, three every 200 ms.
	tellWithin = time.Second
	// measureEvery is how often round-trip times are looked at.
	measureEvery = 2 * time.Second
	// membersGone bounds the failed and left nodes that are remembered.
	membersGone = 256
	// nameMax bounds the names of cluster, nodes, regions and versions, in bytes:
	// they are labels of DNS names in certificates.
	nameMax = 63
	// gossipPacket is the size in bytes that no packet of gossip exceeds.
	gossipPacket = 1200
	// gossipEvery is how often a node tells gossipNodes others what is news. After a cut
	// each node has to speak for itself, in 250 bytes of a packet, before those who were
	// told that it is dead give it up: of 200 nodes, many were too late at memberlist's
	// 200 ms and three. A packet goes only where there is news.
	gossipEvery = 100 * time.Millisecond
	gossipNodes = 5
	// exchangeEvery is how often a node and another one exchange all that they know, which
	// finds what was lost; memberlist makes it four times as long with 200 nodes.
	exchangeEvery = 15 * time.Second
	// gossipQueue bounds the packets and streams of gossip that wait.
	gossipQueue = 256
	// stableAfter is how long a link must have lived for the next wait to be short.
	stableAfter = 5 * time.Second
)

// The flow control windows, in bytes. The listener gives everyone the small
// ones, and lets only those of links grow: it has to choose before it knows
// who is calling.
const (
	clientStreamWindow = 64 << 10
	clientWindow       = 128 << 10
	linkStreamStart    = 1 << 20
	linkStart          = 2 << 20
	linkStreamWindow   = 2 * wire.NodeFrame
	linkWindow         = 4 * wire.NodeFrame
	clientStreams      = 32  // open at once, also those that a node opens to the listener's side
	linkStreams        = 128 // open at once
)

// listenConfig is the QUIC configuration of accepted connections.
func listenConfig(isLink func(*quic.Conn) bool) *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           handshakeIdle,
		MaxIdleTimeout:                 wire.IdleTimeout,
		InitialStreamReceiveWindow:     clientStreamWindow,
		InitialConnectionReceiveWindow: clientWindow,
		MaxStreamReceiveWindow:         linkStreamWindow,
		MaxConnectionReceiveWindow:     linkWindow,
		AllowConnectionWindowIncrease:  func(c *quic.Conn, _ uint64) bool { return isLink(c) },
		MaxIncomingStreams:             clientStreams,
		MaxIncomingUniStreams:          -1,
		DisablePathMTUDiscovery:        true,
	}
}

// dialConfig is the QUIC configuration of dialled connections; the idle
// timeout of a connection is the smaller one of its two ends.
func dialConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           handshakeIdle,
		MaxIdleTimeout:                 linkIdle,
		KeepAlivePeriod:                linkKeepAlive,
		InitialStreamReceiveWindow:     linkStreamStart,
		InitialConnectionReceiveWindow: linkStart,
		MaxStreamReceiveWindow:         linkStreamWindow,
		MaxConnectionReceiveWindow:     linkWindow,
		MaxIncomingStreams:             linkStreams,
		MaxIncomingUniStreams:          1, // the welcome
		DisablePathMTUDiscovery:        true,
	}
}

// backoff returns the wait after the nth failure (from 0) in a row: from
// shortest to longest, doubled each time, of which up to a half is taken off by chance.
func backoff(n int, shortest, longest time.Duration) time.Duration {
	d := longest
	if n < 16 {
		d = min(longest, shortest<<n)
	}
	return d/2 + rand.N(d/2+1)
}
