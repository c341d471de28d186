package starling

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/starling-im/starling/relay"
)

// What a node exports of its clients, and of what it relays to them and to other nodes.
var (
	metricResumed = metric("sessions_resumed_total", "Sessions that went on with an earlier one.")
	metricTurned  = metric("sessions_refused_total", "Clients that were not let in.", "code")
	metricEnded   = metric("sessions_ended_total", "Sessions that the node ended.", "code")

	metricOpen     = metric("sends_open", "Sends of clients that have no answer yet.")
	metricAdmitted = metric("sends_admitted_total", "Sends of clients that were passed on to their rooms' leaders.")
	metricHeld     = metric("sends_refused_total", "Sends of clients that were refused before that.", "code")

	metricTopics    = metric("relay_topics", "Rooms that are followed at this node.")
	metricFollowers = metric("relay_followers", "Follows of clients and of other nodes, and those within this node.")
	metricEvents    = metric("relay_events_total", "Events written to followers.")
	metricWrites    = metric("relay_writes_total", "Writes of one event or more.")
	metricRelayed   = metric("relay_bytes_total", "Bytes of these writes, before TLS.")
	metricReads     = metric("relay_tail_reads_total", "Looks for events in what the node has of a room in memory.", "result")
	metricReaders   = metric("relay_history_readers", "Followers that wait for what is not in memory.")
	metricPages     = metric("relay_history_pages_total", "Pages read for them, each for all who ask near each other.")
	metricWaited    = metric("relay_wait_seconds", "How long events waited until a worker took them to write.")
	metricTook      = metric("relay_turn_seconds", "How long a worker wrote, for up to 32 followers.")
)

// clients sends who comes and what they send.
func (m metrics) clients(out chan<- prometheus.Metric) {
	door, sends := m.node.door.Stats(), m.node.admission.Stats()
	counter(out, metricResumed, door.Resumed)
	byCode(out, metricTurned, door.Refused)
	byCode(out, metricEnded, door.Ended)
	out <- prometheus.MustNewConstMetric(metricOpen, prometheus.GaugeValue, float64(sends.Open))
	counter(out, metricAdmitted, sends.Admitted)
	byCode(out, metricHeld, sends.Refused)
}

// relay sends what goes to followers.
func (m metrics) relay(out chan<- prometheus.Metric) {
	stats := m.node.hub.Stats()
	gauge := func(d *prometheus.Desc, value float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	gauge(metricTopics, float64(stats.Topics))
	gauge(metricFollowers, float64(stats.Followers))
	gauge(metricReaders, float64(stats.Readers))
	counter(out, metricEvents, stats.Events)
	counter(out, metricWrites, stats.Writes)
	counter(out, metricRelayed, stats.Bytes)
	counter(out, metricReads, stats.Hits, "hit")
	counter(out, metricReads, stats.Misses, "miss")
	counter(out, metricPages, stats.Pages)
	since := time.UnixMilli(m.node.since)
	out <- newHistogram(metricWaited, stats.Waited, since)
	out <- newHistogram(metricTook, stats.Took, since)
}

func counter(out chan<- prometheus.Metric, d *prometheus.Desc, value uint64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
}

// byCode sends counts by codes, of which there are few.
func byCode(out chan<- prometheus.Metric, d *prometheus.Desc, counts map[string]uint64) {
	for code, n := range counts {
		counter(out, d, n, code)
	}
}

// A histogram is a native one with classic buckets, for those who scrape text.
type histogram struct {
	prometheus.Metric
	classic []*dto.Bucket
}

// classicBounds are those of the classic buckets, in doublings of a second.
var classicBounds = []int{-16, -13, -10, -7, -4, -1, 2}

func newHistogram(d *prometheus.Desc, t relay.Times, since time.Time) prometheus.Metric {
	count := t.Brief
	for _, n := range t.Buckets {
		count += uint64(n)
	}
	native, err := prometheus.NewConstNativeHistogram(
		d, count, t.Sum.Seconds(), t.Buckets, nil, t.Brief, relay.TimesSchema, relay.TimesBrief, since)
	if err != nil {
		return prometheus.NewInvalidMetric(d, err)
	}
	h := histogram{Metric: native}
	for _, doublings := range classicBounds {
		most, below := math.Exp2(float64(doublings)), t.Brief
		for i, n := range t.Buckets {
			if i <= doublings<<relay.TimesSchema {
				below += uint64(n)
			}
		}
		h.classic = append(h.classic, &dto.Bucket{UpperBound: &most, CumulativeCount: &below})
	}
	return h
}

// Write implements prometheus.Metric.
func (h histogram) Write(m *dto.Metric) error {
	if err := h.Metric.Write(m); err != nil {
		return err
	}
	m.Histogram.Bucket = h.classic
	return nil
}
