package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// A row is what came of one turn. Times of acks are in ms, processor times in
// s per 100,000 messages.
type row struct {
	System   string  `json:"system"`
	Workload string  `json:"workload"`
	Round    int     `json:"round"`
	PerS     float64 `json:"per_s"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	// CPU is of all processes; nil = this system does not tell.
	CPU       *float64 `json:"cpu_s_per_100k"`
	ServerCPU *float64 `json:"server_cpu_s_per_100k"`
	ClientCPU *float64 `json:"client_cpu_s_per_100k"`
	Messages  int      `json:"messages"`
	Seconds   float64  `json:"seconds"`
	// Limits are those within which it was measured; of durable the profile of
	// Starling's.
	Limits  string  `json:"limits,omitempty"`
	Groups  int     `json:"groups"` // or streams
	FsyncMs float64 `json:"fsync_delay_ms"`

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
	Repeated int  `json:"repeated,omitempty"`
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

// printTable writes a line for each workload and system: the medians of its
// rounds, and of the rates their spread.
func printTable(out io.Writer, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WORKLOAD\tSYSTEM\tMESSAGES/S\tMIN..MAX\tP50 MS\tP99 MS\tCPU S/100,000\tSERVERS\tCLIENT\tROUNDS")
	for len(rows) > 0 {
		first := rows[0]
		same := func(r row) bool { return r.System == first.System && r.Workload == first.Workload }
		var mine []row
		for _, r := range rows {
			if same(r) {
				mine = append(mine, r)
			}
		}
		rows = slices.DeleteFunc(slices.Clone(rows), same)
		for _, r := range mine {
			if r.Missing != "" {
				fmt.Fprintf(w, "%s\t%s\tmissing: %s\n", r.Workload, r.System, r.Missing)
			}
		}
		if mine = slices.DeleteFunc(mine, func(r row) bool { return r.Missing != "" }); len(mine) == 0 {
			continue
		}
		low, rate, high := spread(mine, func(r row) float64 { return r.PerS })
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f..%.0f\t%.2f\t%.2f\t%s\t%s\t%s\t%d\n", first.Workload, first.System, rate, low, high,
			middle(mine, func(r row) float64 { return r.P50 }), middle(mine, func(r row) float64 { return r.P99 }),
			processor(mine, func(r row) *float64 { return r.CPU }),
			processor(mine, func(r row) *float64 { return r.ServerCPU }),
			processor(mine, func(r row) *float64 { return r.ClientCPU }), len(mine))
	}
	return w.Flush()
}

// processor is the median of a processor time, "-" if it is not known.
func processor(rows []row, of func(row) *float64) string {
	for _, r := range rows {
		if of(r) == nil {
			return "-"
		}
	}
	m := middle(rows, func(r row) float64 { return *of(r) })
	return seconds(&m)
}

func middle(rows []row, of func(row) float64) float64 {
	_, m, _ := spread(rows, of)
	return m
}

// spread returns the least, the median and the greatest.
func spread(rows []row, of func(row) float64) (low, median, high float64) {
	var values []float64
	for _, r := range rows {
		values = append(values, of(r))
	}
	slices.Sort(values)
	n := len(values)
	return values[0], (values[(n-1)/2] + values[n/2]) / 2, values[n-1]
}
