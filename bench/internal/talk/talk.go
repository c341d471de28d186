// Package talk speaks to each of the systems that the bench measures, as their
// clients do, at the lowest cost for whoever has a thousand connections: a
// buffer and a goroutine that reads for each, and no more.
//
// It promises that every connection is encrypted and checks the server's
// certificate, and that what it hands over came from the server as it was sent.
// It does not connect again by itself.
package talk

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// The protocols that can be spoken.
const (
	StarlingQUIC = "starling-quic"
	StarlingWS   = "starling-ws"
	NATS         = "nats"
	Centrifuge   = "centrifuge"
	MQTT         = "mqtt" // 3.1.1, QoS 0
)

// A Target says where a server is and how to talk to it.
type Target struct {
	Protocol string
	Addr     string // host:port
	CA       string // PEM
	Name     string // that the certificate is for
	Token    string // of Starling
	UserHost string // what follows the user's name and @ in MQTT; "" = no user is named
}

// A Handler hears what a connection reads; its functions are called by Read,
// and hold it up.
type Handler struct {
	// Message gets a message, whose memory is good until it returns, and the
	// position to follow on from, 0 if the system has none.
	Message func(content []byte, seq uint64)
	// Acked gets how a message of a system with acks ended.
	Acked func(id uint64, err error)
}

// A Conn is one connection. It either follows rooms or publishes. Publish and
// Flush go together with Read, but not with each other.
type Conn interface {
	// Follow asks for the messages of rooms, those after a position or from now
	// on if that is 0, and returns once the server has agreed to all. It comes
	// before Read; messages that are faster than the answer go to h.
	Follow(rooms []string, after uint64, h *Handler) error
	// Publish sends a message, whose id Acked will name, at the next Flush or
	// before. attempt rises each time that open messages are sent again. A system
	// that knows its messages by id takes one once from all connections of a Dialer.
	Publish(id uint64, attempt uint32, room string, content []byte) error
	Flush() error
	// Read reads until the connection ends, and says why.
	Read(h *Handler) error
	Close()
}

// BeatEvery is how often a Conn wants its Beat called, if it has one.
const BeatEvery = 20 * time.Second

// HasAcks reports whether a publisher learns what became of a message.
func HasAcks(protocol string) bool {
	return protocol == StarlingQUIC || protocol == StarlingWS || protocol == Centrifuge
}

// A Dialer opens connections to one target.
type Dialer struct {
	target Target
	tls    *tls.Config
	prefix string // of the ids of messages: what a connection sends again, another one does under the same id
}

// NewDialer returns a dialer.
func NewDialer(t Target) (*Dialer, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(t.CA)) {
		return nil, errors.New("the target has no certificate to trust")
	}
	return &Dialer{t, &tls.Config{RootCAs: roots, ServerName: t.Name, MinVersion: tls.VersionTLS13}, rand.Text()[:8] + "-"}, nil
}

// TLS is how the connections are encrypted.
func (d *Dialer) TLS() *tls.Config { return d.tls.Clone() }

// dialWithin bounds how long it takes until a connection can be used.
const dialWithin = 20 * time.Second

// Dial opens a connection as a user, whose name is for the systems that want
// one. tickets, which may be nil, remembers the server for the next time.
func (d *Dialer) Dial(ctx context.Context, user string, tickets tls.ClientSessionCache) (Conn, error) {
	return d.DialFrom(ctx, user, tickets, Place{})
}

// A Place is where a client is, and what it takes in without reading.
type Place struct {
	From net.IP // its address; nil = that of the machine
	// Takes is what its system takes in for it, in bytes: the buffer of TCP, the
	// windows of QUIC; 0 = as it comes.
	Takes int
	// Deaf, of QUIC, is called before each packet is read, and may hold it up; nil = it
	// is not.
	Deaf func()
}

// DialFrom is Dial from a place.
func (d *Dialer) DialFrom(ctx context.Context, user string, tickets tls.ClientSessionCache, at Place) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	config := d.tls
	if tickets != nil {
		config = config.Clone()
		config.ClientSessionCache = tickets
	}
	if d.target.Protocol == StarlingQUIC {
		return d.quic(ctx, config, at)
	}
	c, err := at.tcp().DialContext(ctx, "tcp", d.target.Addr)
	if err != nil {
		return nil, err
	}
	// What greets must come within the time, too.
	_ = c.SetDeadline(time.Now().Add(dialWithin))
	conn, err := d.greet(ctx, c, config, user)
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return conn, nil
}

// tcp dials from the place.
func (at Place) tcp() *net.Dialer {
	d := &net.Dialer{Control: at.control}
	if at.From != nil {
		d.LocalAddr = &net.TCPAddr{IP: at.From}
	}
	return d
}

func (d *Dialer) greet(ctx context.Context, c net.Conn, config *tls.Config, user string) (Conn, error) {
	switch d.target.Protocol {
	case StarlingWS:
		return d.greetStarling(ctx, c, config)
	case NATS:
		return greetNATS(ctx, c, config)
	case Centrifuge:
		return greetCentrifuge(ctx, c, config, d.target.Addr)
	case MQTT:
		return greetMQTT(ctx, c, config, user, d.target.UserHost)
	}
	return nil, fmt.Errorf("nobody speaks %q", d.target.Protocol)
}

// control bounds what the system takes in, before it tells the peer.
func (at Place) control(_, _ string, c syscall.RawConn) (err error) {
	if at.Takes == 0 {
		return nil
	}
	broken := c.Control(func(fd uintptr) { err = bound(fd, at.Takes) })
	return errors.Join(broken, err)
}

// encrypt begins TLS on a connection.
func encrypt(ctx context.Context, c net.Conn, config *tls.Config) (*tls.Conn, error) {
	t := tls.Client(c, config)
	return t, t.HandshakeContext(ctx)
}
