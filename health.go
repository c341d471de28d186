package starling

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/mesh"
)

// serveHTTP answers on the node's TCP port: GET /healthz with 200 once the node can
// serve clients, 503 before; GET /metrics with its figures for Prometheus; GET /ws with
// a client's session over WebSocket. Other nodes come to the same port.
func (n *Node) serveHTTP(ctx context.Context) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		stats := n.Stats()
		w.Header().Set("Content-Type", "application/json")
		if !stats.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(struct {
			Node    string `json:"node"`
			Region  string `json:"region"`
			Version string `json:"version"`
			Stats
		}{n.cfg.Node, n.cfg.Region, n.env.Version, stats})
	})
	mux.Handle("GET /metrics", n.serveMetrics())
	mux.Handle("GET "+webSocketPath, n.door.WebSocket(ctx))
	server := &http.Server{
		Handler: mux, MaxHeaderBytes: httpHeader, ReadHeaderTimeout: httpRead, ReadTimeout: httpRead, WriteTimeout: httpWrite, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug), // of peers that speak no TLS
		// The protocols are those that ServeTLS would add, but to a copy of its own; crowd, which is made before, has them too.
		TLSConfig:    &tls.Config{GetCertificate: n.credentials.certificate, MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}, DynamicRecordSizingDisabled: true},
		TLSNextProto: make(map[string]func(*http.Server, *tls.Conn, http.Handler)), Protocols: new(http.Protocols),
	}
	server.TLSConfig.GetConfigForClient = n.helloTCP(n.mesh.ResumeTLS(server.TLSConfig))
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	for _, protocol := range mesh.TCPProtocols {
		server.TLSNextProto[protocol] = func(_ *http.Server, c *tls.Conn, _ http.Handler) { n.mesh.ServeTCP(c) }
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ServeTLS(edge.EagerListener(n.mesh.LimitTCP(n.env.HTTP)), "", ""); err != nil && ctx.Err() == nil {
		n.log.Error("the HTTP port failed", "err", err)
	}
	n.door.Wait()
}

// helloTCP is GetConfigForClient of crypto/tls for the TCP port, where clients that come
// back in a crowd get a config of their own.
func (n *Node) helloTCP(crowd *tls.Config) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		config, err := n.mesh.TCPConfig(hello)
		if config != nil || err != nil { // of a node, or of one that joins: they do not wait behind clients
			return config, err
		}
		crowded, err := edge.Handshake(hello.Conn)
		if crowded && mesh.Resumes(hello) {
			config = crowd
		}
		return config, err
	}
}

// webSocketPath is where clients ask for a WebSocket.
const webSocketPath = "/ws"

const (
	httpHeader = 16 << 10
	httpRead   = 10 * time.Second
	// httpWrite bounds an answer: few are given at one time (metricsAtOnce), and whoever
	// does not read theirs must not keep it.
	httpWrite = 10 * time.Second
)
