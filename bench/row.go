package main

import "fmt"

// A row is what came of one turn; it has the figures that its workload has. Times
// of acks are in ms, processor times in s per 100,000 messages.
type row struct {
	System   string  `json:"system"`
	Workload string  `json:"workload"`
	Round    int     `json:"round"`
	PerS     float64 `json:"per_s,omitempty"`
	P50      float64 `json:"p50_ms,omitempty"`
	P99      float64 `json:"p99_ms,omitempty"`
	// CPU is of all processes; nil = this system does not tell.
	CPU       *float64 `json:"cpu_s_per_100k,omitempty"`
	ServerCPU *float64 `json:"server_cpu_s_per_100k,omitempty"`
	ClientCPU *float64 `json:"client_cpu_s_per_100k,omitempty"`
	Messages  int      `json:"messages,omitempty"`
	Seconds   float64  `json:"seconds,omitempty"`
	// Limits are those within which it was measured; of durable the profile of
	// Starling's.
	Limits  string   `json:"limits,omitempty"`
	Groups  int      `json:"groups,omitempty"` // or streams
	FsyncMs *float64 `json:"fsync_delay_ms,omitempty"`

	relayFigures

	// Missing says why there is no measurement.
	Missing string `json:"missing,omitempty"`
}

// relayFigures are of the workloads beside durable, those that they have.
type relayFigures struct {
	Deliveries     int     `json:"deliveries,omitempty"`
	DeliveriesPerS float64 `json:"deliveries_per_s,omitempty"`
	// The processor times of the server and of all clients, in s per million
	// deliveries.
	CPUPerM       *float64 `json:"cpu_s_per_m,omitempty"`
	ClientCPUPerM *float64 `json:"client_cpu_s_per_m,omitempty"`
	// KiBPerConn is of memory that is resident, HeapKiBPerConn of what the
	// server itself says that its heap and stacks have in use.
	KiBPerConn     *float64 `json:"kib_per_conn,omitempty"`
	HeapKiBPerConn *float64 `json:"heap_kib_per_conn,omitempty"`
	BackS          *float64 `json:"back_s,omitempty"`
	Connections    int      `json:"connections,omitempty"`
	// Lost and Repeated are deliveries.
	Lost     *int `json:"lost,omitempty"`
	Repeated *int `json:"repeated,omitempty"`
}

// String is a row as progress.
func (r row) String() string {
	text := fmt.Sprintf("%s, %s, round %d: ", r.System, r.Workload, r.Round)
	if r.Missing != "" {
		return text + "missing, since " + r.Missing
	}
	switch {
	case r.KiBPerConn != nil:
		return text + fmt.Sprintf("%.1f KiB per connection, %s of it in use", *r.KiBPerConn, seconds(r.HeapKiBPerConn))
	case r.BackS != nil:
		return text + fmt.Sprintf("all back after %.2f s, %d of %d deliveries lost", *r.BackS, *r.Lost, r.Messages*r.Connections)
	case r.Deliveries > 0:
		return text + fmt.Sprintf("%.0f deliveries/s, p50 %.2f ms, p99 %.2f ms, processor %s s per million (clients %s), %d lost",
			r.DeliveriesPerS, r.P50, r.P99, seconds(r.CPUPerM), seconds(r.ClientCPUPerM), *r.Lost)
	}
	return text + fmt.Sprintf("%.0f/s, p50 %.2f ms, p99 %.2f ms, processor %s s per 100,000", r.PerS, r.P50, r.P99, seconds(r.CPU))
}

func seconds(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f", *v)
}
