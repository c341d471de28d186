package starling_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-im/starling"
)

// memoryPort is a TCP port in memory, over which nothing goes that nobody reads.
type memoryPort struct {
	conns  chan net.Conn
	ended  chan struct{}
	ending sync.Once
}

func newMemoryPort() *memoryPort {
	return &memoryPort{conns: make(chan net.Conn), ended: make(chan struct{})}
}

func (p *memoryPort) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *memoryPort) Close() error {
	p.ending.Do(func() { close(p.ended) })
	return nil
}

func (p *memoryPort) Addr() net.Addr { return &net.TCPAddr{} }

// get asks for a page, and leaves the answer to be read.
func (p *memoryPort) get(t *testing.T, page string) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	p.conns <- far
	t.Cleanup(func() { _ = near.Close() })
	c := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
	_, err := io.WriteString(c, "GET "+page+" HTTP/1.1\r\nHost: node\r\n\r\n")
	ok(t, err)
	return c
}

// TestMetricsThatNobodyReads has strangers ask for as many pages of metrics as are made
// at one time, and read none: others get theirs soon after.
func TestMetricsThatNobodyReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, port := newWorld(t, "fra"), newMemoryPort()
		w.before = func(n *starling.Node) { n.ServeHTTP(port) }
		w.start(w.peers[0].ID)
		time.Sleep(5 * time.Second)
		for range 4 {
			port.get(t, "/metrics")
		}
		time.Sleep(25 * time.Second) // an answer is bounded, and before it what TLS writes
		answer, err := http.ReadResponse(bufio.NewReader(port.get(t, "/metrics")), nil)
		ok(t, err)
		if answer.StatusCode != http.StatusOK {
			t.Errorf("the metrics are answered with %s", answer.Status)
		}
		w.stopAll()
	})
}
