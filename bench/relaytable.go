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

// relayColumns are those of each kind of workload. The first one's spread is
// shown too.
var relayColumns = map[string][]column{
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

var deliveryColumns = []column{
	{"DELIVERIES/S", "%.0f", known(func(r row) float64 { return r.DeliveriesPerS })},
	{"CPU S/MILLION", "%.2f", func(r row) *float64 { return r.CPUPerM }},
	{"CLIENTS", "%.2f", func(r row) *float64 { return r.ClientCPUPerM }},
	{"P50 MS", "%.2f", known(func(r row) float64 { return r.P50 })},
	{"P99 MS", "%.2f", known(func(r row) float64 { return r.P99 })},
	{"LOST", "%.0f", lostOf},
}

func lostOf(r row) *float64 {
	if r.Lost == nil {
		return nil
	}
	v := float64(*r.Lost)
	return &v
}

// printRelayTable writes a line for each workload and system, and below them
// why turns are missing.
func printRelayTable(out io.Writer, kind string, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	columns := relayColumns[kind]
	fmt.Fprintf(w, "WORKLOAD\tSYSTEM\t%s\tMIN..MAX", columns[0].head)
	for _, c := range columns[1:] {
		fmt.Fprintf(w, "\t%s", c.head)
	}
	fmt.Fprintln(w, "\tROUNDS")
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b row) int { return strings.Compare(a.Workload, b.Workload) })
	var missing []row
	for len(rows) > 0 {
		first := rows[0]
		same := func(r row) bool { return r.System == first.System && r.Workload == first.Workload }
		var mine []row
		for _, r := range rows {
			switch {
			case same(r) && r.Missing != "":
				missing = append(missing, r)
			case same(r):
				mine = append(mine, r)
			}
		}
		rows = slices.DeleteFunc(rows, same)
		if len(mine) == 0 {
			continue
		}
		low, median, high := columns[0].spread(mine)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s..%s", first.Workload, first.System, median, low, high)
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
	for _, r := range rows {
		if c.of(r) == nil {
			return "-", "-", "-"
		}
	}
	l, m, h := spread(rows, func(r row) float64 { return *c.of(r) })
	return fmt.Sprintf(c.format, l), fmt.Sprintf(c.format, m), fmt.Sprintf(c.format, h)
}
