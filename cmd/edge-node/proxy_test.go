package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
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
