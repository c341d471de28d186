package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// A column of a table is a figure of rows, of which the median is shown.
type column struct {
	head   string
	format string
	of     func(row) *float64
}

func known(of func(row) float64) func(row) *float64 {
	return func(r row) *float64 { v := of(r); return &v }
}

// The columns of each kind of workload. The first one's spread is shown too.
var (
	durableColumns = []column{
		{"MESSAGES/S", "%.0f", known(func(r row) float64 { return r.PerS })},
		{"P50 MS", "%.2f", known(func(r row) float64 { return r.P50 })},
		{"P99 MS", "%.2f", known(func(r row) float64 { return r.P99 })},
		{"CPU S/100,000", "%.2f", func(r row) *float64 { return r.CPU }},
		{"SERVERS", "%.2f", func(r row) *float64 { return r.ServerCPU }},
		{"CLIENT", "%.2f", func(r row) *float64 { return r.ClientCPU }},
	}
	deliveryColumns = []column{
		{"DELIVERIES/S", "%.0f", known(func(r row) float64 { return r.DeliveriesPerS })},
		{"CPU S/MILLION", "%.2f", func(r row) *float64 { return r.CPUPerM }},
		{"CLIENTS' CPU", "%.2f", func(r row) *float64 { return r.ClientCPUPerM }},
		{"P50 MS", "%.2f", known(func(r row) float64 { return r.P50 })},
		{"P99 MS", "%.2f", known(func(r row) float64 { return r.P99 })},
		{"LOST", "%.0f", lostOf},
	}
	relayColumns = map[string][]column{
		kindIdle: {
			{"KIB/CONNECTION", "%.1f", func(r row) *float64 { return r.KiBPerConn }},
			{"HEAP", "%.1f", func(r row) *float64 { return r.HeapKiBPerConn }},
		},
		kindFanout: deliveryColumns,
		kindRooms:  deliveryColumns,
		kindReconnect: {
			{"BACK S", "%.2f", func(r row) *float64 { return r.BackS }},
			{"LOST", "%.0f", lostOf},
			{"OF", "%.0f", known(func(r row) float64 { return float64(r.Messages * r.Connections) })},
		},
	}
)

func lostOf(r row) *float64 {
	if r.Lost == nil {
		return nil
	}
	v := float64(*r.Lost)
	return &v
}

// byWorkload are rows in the order of the names of their workloads.
func byWorkload(rows []row) []row {
	return slices.SortedStableFunc(slices.Values(rows), func(a, b row) int { return strings.Compare(a.Workload, b.Workload) })
}

// printTable writes a line for each workload and system, in the order of their first
// rows, and below them why turns are missing.
func printTable(out io.Writer, columns []column, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "WORKLOAD\tSYSTEM\t%s\tMIN..MAX", columns[0].head)
	for _, c := range columns[1:] {
		fmt.Fprintf(w, "\t%s", c.head)
	}
	fmt.Fprintln(w, "\tROUNDS")
	type line struct{ workload, system string }
	var lines []line
	measured := map[line][]row{}
	var missing []row
	for _, r := range rows {
		l := line{r.Workload, r.System}
		switch {
		case r.Missing != "":
			missing = append(missing, r)
			continue
		case measured[l] == nil:
			lines = append(lines, l)
		}
		measured[l] = append(measured[l], r)
	}
	for _, l := range lines {
		mine := measured[l]
		low, median, high := columns[0].spread(mine)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s..%s", l.workload, l.system, median, low, high)
		for _, c := range columns[1:] {
			_, median, _ := c.spread(mine)
			fmt.Fprintf(w, "\t%s", median)
		}
		fmt.Fprintf(w, "\t%d\n", len(mine))
	}
	for _, r := range missing {
		fmt.Fprintf(w, "%s\t%s\tmissing: %s\n", r.Workload, r.System, r.Missing)
	}
	return w.Flush()
}

// spread is the least, the median and the greatest of a column, as text; "-" if
// it is not known.
func (c column) spread(rows []row) (low, median, high string) {
	var values []float64
	for _, r := range rows {
		v := c.of(r)
		if v == nil {
			return "-", "-", "-"
		}
		values = append(values, *v)
	}
	slices.Sort(values)
	n := len(values)
	text := func(v float64) string { return fmt.Sprintf(c.format, v) }
	return text(values[0]), text((values[(n-1)/2] + values[n/2]) / 2), text(values[n-1])
}
