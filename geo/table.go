package geo

import (
	_ "embed"
	"encoding/csv"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// PoP is where a region is.
type PoP struct {
	Code     string // of the region, such as fra
	City     string
	Country  string
	Lat, Lon float64 // degrees
}

// Table holds the round-trip times between places. It does not change.
type Table struct {
	places []PoP
	index  map[string]int
	rtt    [][]time.Duration
}

// The measurements are WonderNetwork's, as published in ConsenSys/wittgenstein
// (core/src/main/resources, Apache-2.0). Codes are made lower case.
var (
	//go:embed data/pops.csv
	popsCSV string
	//go:embed data/rtt_ms.csv
	rttCSV string
)

// Pops returns the table of 40 places around the world, with the average
// round-trip times that were measured between them on the public Internet.
func Pops() *Table { return pops() }

var pops = sync.OnceValue(func() *Table {
	t, err := parse(popsCSV, rttCSV)
	if err != nil {
		panic("geo: " + err.Error()) // only if the files built in are wrong
	}
	return t
})

func parse(places, rtts string) (*Table, error) {
	t := &Table{index: make(map[string]int)}
	rows, err := readCSV(places)
	if err != nil {
		return nil, err
	}
	for i, r := range rows {
		p := PoP{Code: r[0], City: r[1], Country: r[2]}
		if p.Lat, err = strconv.ParseFloat(r[3], 64); err != nil {
			return nil, err
		}
		if p.Lon, err = strconv.ParseFloat(r[4], 64); err != nil {
			return nil, err
		}
		t.places = append(t.places, p)
		t.index[p.Code] = i
	}
	if rows, err = readCSV(rtts); err != nil {
		return nil, err
	}
	if len(rows) != len(t.places)+1 {
		return nil, fmt.Errorf("%d rows of times for %d places", len(rows), len(t.places))
	}
	for _, r := range rows[1:] {
		var row []time.Duration
		for _, field := range r[1:] {
			ms, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return nil, err
			}
			row = append(row, time.Duration(ms*float64(time.Millisecond)))
		}
		t.rtt = append(t.rtt, row)
	}
	return t, nil
}

func readCSV(text string) ([][]string, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.Comment = '#'
	return r.ReadAll()
}

// Regions returns the codes of all places, in order.
func (t *Table) Regions() []string {
	codes := make([]string, len(t.places))
	for i, p := range t.places {
		codes[i] = p.Code
	}
	slices.Sort(codes)
	return codes
}

// Place returns where a region is, false if the table does not have it.
func (t *Table) Place(region string) (PoP, bool) {
	i, ok := t.index[region]
	if !ok {
		return PoP{}, false
	}
	return t.places[i], true
}

// RTT returns the round-trip time between two regions, false if one is not in
// the table. It is the mean of what was measured from either side, and 0 from
// a region to itself.
func (t *Table) RTT(a, b string) (time.Duration, bool) {
	i, ok := t.index[a]
	j, ok2 := t.index[b]
	if !ok || !ok2 {
		return 0, false
	}
	return (t.rtt[i][j] + t.rtt[j][i]) / 2, true
}

// Nearest returns the region of to with the shortest round-trip time from
// another, the first by name among equals; false if the table does not say.
func (t *Table) Nearest(from string, to []string) (string, bool) {
	order := byDistance(t, from, to)
	if len(order) == 0 {
		return "", false
	}
	_, known := t.RTT(from, order[0])
	return order[0], known
}
