package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// dialTCP returns what connects to other nodes by TCP: by itself, or through an HTTP
// proxy if its URL is not "".
func dialTCP(proxy string) (func(ctx context.Context, addr string) (net.Conn, error), error) {
	direct := new(net.Dialer)
	if proxy == "" {
		return func(ctx context.Context, addr string) (net.Conn, error) { return direct.DialContext(ctx, "tcp", addr) }, nil
	}
	u, err := url.Parse(proxy)
	if err != nil || u.Scheme != "http" || u.Port() == "" {
		return nil, usagef("the proxy is not http://[user:password@]host:port")
	}
	return func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := direct.DialContext(ctx, "tcp", u.Host)
		if err != nil {
			return nil, fmt.Errorf("proxy %s: %w", u.Host, err)
		}
		stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
		through, err := connect(c, u, addr)
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("proxy %s: %w", u.Host, err)
		}
		return through, nil
	}, nil
}

// connect asks a proxy for a tunnel to an address (RFC 9110, section 9.3.6).
func connect(c net.Conn, proxy *url.URL, addr string) (net.Conn, error) {
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: make(http.Header)}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := request.Write(c); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(c, proxyAnswer)
	answer, err := http.ReadResponse(r, request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode/100 != 2 {
		return nil, fmt.Errorf("it answers %s to CONNECT %s", answer.Status, addr)
	}
	if r.Buffered() > 0 { // in TLS the side that dialled speaks first
		return nil, fmt.Errorf("it sent bytes after its answer to CONNECT %s", addr)
	}
	return c, nil
}

// proxyAnswer is the size in bytes of the buffer for the answer of a proxy.
const proxyAnswer = 4 << 10
