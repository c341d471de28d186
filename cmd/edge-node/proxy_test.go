package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/mesh"
)

// connectProxy is an HTTP proxy that asks for a password, and counts what it connects.
func connectProxy(t *testing.T, connected *atomic.Int64) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
		if r.Method != http.MethodConnect || user != "box" || password != "open sesame" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		to, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		connected.Add(1)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(to, c)
			_ = to.Close()
		}()
		_, _ = io.Copy(c, to)
		_ = c.Close()
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func TestProxy(t *testing.T) {
	var connected atomic.Int64
	addr := connectProxy(t, &connected)
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	for _, test := range []struct{ proxy, to, err string }{
		{"http://box:open%20sesame@" + addr, echo.Addr().String(), ""},
		{"http://box:closed@" + addr, echo.Addr().String(), "407 Proxy Authentication Required"},
		{"http://box:open%20sesame@" + addr, "127.0.0.1:1", "502 Bad Gateway"},
		{"http://127.0.0.1:1", echo.Addr().String(), "connection refused"},
	} {
		dial, err := dialTCP(test.proxy)
		if err != nil {
			t.Fatal(err)
		}
		c, err := dial(t.Context(), test.to)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s to %s: %v, not %s", test.proxy, test.to, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
		_ = c.Close()
	}
	if connected.Load() != 1 {
		t.Errorf("%d connections", connected.Load())
	}
}

// TestJoinThroughProxy has a node that may only go through a proxy join, and chat.
func TestJoinThroughProxy(t *testing.T) {
	t.Parallel()
	var connected atomic.Int64
	proxy := "http://box:open%20sesame@" + connectProxy(t, &connected)
	c := newJoiner(t)
	output(t, c.home, "", "cluster", "init", c.data("fra-1"), "--regions", "fra,iad", "--listen", c.addr(1))
	c.run("fra-1", "--data", c.data("fra-1"))
	waitFor(t, "the first node", func() bool { return c.try("members", "--data", c.data("fra-1")) == nil })
	c.run("iad-1", append(c.joining("iad-1", 2, 1, "iad", c.token("fra-1", "iad")), "--proxy", proxy, "--reachability", starling.ReachOutbound)...)
	c.waitAlive("iad-1", 2)
	bob := output(t, c.home, "through the proxy\n/quit\n", "chat", "lobby", "--as", "bob", "--data", c.data("iad-1"), "--json")
	if !strings.Contains(bob, "through the proxy") {
		t.Errorf("bob saw %q", bob)
	}
	for _, m := range c.members("iad-1") {
		if m.ID == "fra-1" && m.Path != mesh.PathTCP {
			t.Errorf("the link goes over %q", m.Path)
		}
	}
	if n := connected.Load(); n < 2 { // to join, and for the link
		t.Errorf("the proxy made %d connections", n)
	}
	if shown := output(t, c.home, "", "config", "show", c.data("iad-1")+"/"+nodeFile); strings.Contains(shown, "sesame") {
		t.Error("the password is shown")
	}
}
