package starling

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/starling-im/starling/mesh"
)

// metrics gives the node's figures to Prometheus. It reads them when it is asked, and
// keeps none.
type metrics struct{ node *Node }

// metric describes one figure; docs/reference/metrics.md has the same.
func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("starling_"+name, help, labels, nil)
}

// What a node exports, besides the figures of Go and of the process.
var (
	metricInfo     = metric("info", "Who this node is; always 1.", "node", "region", "version")
	metricReady    = metric("ready", "1 if the node takes clients.")
	metricDraining = metric("draining", "1 if the node is about to leave.")
	metricSessions = metric("sessions", "Clients that are connected, by how.", "transport")
	metricUnsent   = metric("session_unsent_max_bytes", "The most that ever waited for one client.")
	metricTail     = metric("tail_bytes", "What the newest events of followed rooms take in memory.")

	metricSignals    = metric("signals_total", "Signals told to clients and aggregates of them told to nodes.", "to")
	metricUnsignaled = metric("signals_dropped_total", "Signals that were dropped.", "class", "reason")

	metricMembers = metric("members", "Nodes of the mesh as this one sees them, by state.", "state")
	metricLinks   = metric("links", "Links to other nodes that are up, by how they go.", "path")
	metricRTT     = metric("link_rtt_seconds", "The smoothed round trip of a link.", "peer")
	metricMinRTT  = metric("link_min_rtt_seconds", "The shortest round trip of a link.", "peer")
	metricBulk    = metric("link_bulk_rate_bytes", "How much bulk may be written to a link in a second; 0 if none was lately.", "peer")
	metricBytes   = metric("link_bytes_total", "Bytes to and from other nodes.", "peer", "class", "direction")
	metricFrames  = metric("link_messages_total", "Frames and packets to and from other nodes.", "peer", "class", "direction")

	metricHandshakes = metric("handshakes", "Handshakes in progress, and strangers who ask something.")
	metricRefused    = metric("handshakes_refused_total", "Handshakes refused because there were too many.", "reason")
	metricPeers      = metric("peers_refused_total", "Peers refused for their certificate, their key or what they said.")
	metricTunnel     = metric("tunnel_dropped_total", "Packets of tunnels that came faster than they could be passed on.")
	metricGossip     = metric("gossip_dropped_total", "Packets of gossip that were lost on this node.", "reason")
)

// Describe sends nothing: which metrics there are depends on the mesh.
func (m metrics) Describe(chan<- *prometheus.Desc) {}

// Collect sends the figures of now.
func (m metrics) Collect(out chan<- prometheus.Metric) {
	stats := m.node.Stats()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(metricInfo, 1, m.node.cfg.Node, m.node.cfg.Region, m.node.env.Version)
	gauge(metricReady, flag(stats.Ready))
	gauge(metricDraining, flag(stats.Draining))
	door := m.node.door.Stats()
	gauge(metricSessions, float64(door.QUIC), "quic")
	gauge(metricSessions, float64(door.WebSocket), "websocket")
	gauge(metricUnsent, float64(stats.MaxUnsentBytes))
	gauge(metricTail, float64(stats.TailBytes))

	states := make(map[mesh.State]int)
	links := make(map[string]int)
	for _, p := range m.node.mesh.View().Members {
		states[p.State]++
		if p.Linked {
			links[pathOf(p)]++
			gauge(metricRTT, p.RTT.Seconds(), p.ID)
			gauge(metricMinRTT, p.MinRTT.Seconds(), p.ID)
		}
	}
	for s := mesh.Unknown; s <= mesh.Failed; s++ {
		gauge(metricMembers, float64(states[s]), s.String())
	}
	for _, path := range []string{mesh.PathUDP, mesh.PathTCP, pathTunnel} {
		gauge(metricLinks, float64(links[path]), path)
	}
	m.traffic(out)
	m.clients(out)
	m.relay(out)
}

// traffic sends what goes between nodes, and what was refused and lost.
func (m metrics) traffic(out chan<- prometheus.Metric) {
	signals := m.node.signals.Stats()
	count := func(d *prometheus.Desc, value uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	count(metricSignals, signals.Signals, "client")
	count(metricSignals, signals.Aggregates, "node")
	for drop, n := range signals.Dropped {
		count(metricUnsignaled, n, drop.Class, drop.Reason)
	}
	stats := m.node.mesh.Stats()
	for _, t := range stats.Traffic {
		class := t.Class.String()
		count(metricBytes, t.Sent.Bytes, t.Peer, class, "sent")
		count(metricBytes, t.Received.Bytes, t.Peer, class, "received")
		count(metricFrames, t.Sent.Messages, t.Peer, class, "sent")
		count(metricFrames, t.Received.Messages, t.Peer, class, "received")
	}
	for _, l := range stats.Links {
		out <- prometheus.MustNewConstMetric(metricBulk, prometheus.GaugeValue, l.Bulk, l.Peer)
	}
	out <- prometheus.MustNewConstMetric(metricHandshakes, prometheus.GaugeValue, float64(stats.Handshakes))
	count(metricRefused, stats.RefusedByLimit, "limit")
	count(metricRefused, stats.RefusedByQueue, "queue")
	count(metricPeers, stats.PeersRefused)
	count(metricGossip, stats.GossipDropped, "queue")
	count(metricGossip, stats.GossipUnsent, "unsent")
	count(metricTunnel, stats.TunnelDropped)
}

// pathTunnel stands for all paths through other nodes.
const pathTunnel = "tunnel"

func pathOf(p mesh.Member) string {
	if p.Path == mesh.PathUDP || p.Path == mesh.PathTCP {
		return p.Path
	}
	return pathTunnel
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// serveMetrics returns what answers GET /metrics.
func (n *Node) serveMetrics() http.Handler {
	all := prometheus.NewRegistry()
	all.MustRegister(metrics{n}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{MaxRequestsInFlight: metricsAtOnce})
}

// metricsAtOnce bounds the requests for metrics that are answered at one time.
const metricsAtOnce = 4
