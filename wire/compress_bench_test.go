//go:build unix

package wire_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/starling-im/starling/wire"
	"github.com/starling-im/starling/wire/internal/linkframes"
)

// BenchmarkCompress writes and reads frames of chat that the dictionary was not
// trained on: of the folder STARLING_DATA, or of the sample that is shipped. A round
// is one pass without a dictionary and one with, one after the other, so that what
// else the machine does meets both.
func BenchmarkCompress(b *testing.B) {
	sets := heldOut(b)
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		messages := linkframes.Messages(sets[name])
		for _, kind := range []string{"propose", "events", "append"} {
			for _, n := range []int{1, 10, 100} {
				if kind == "propose" && n > 1 {
					continue
				}
				b.Run(fmt.Sprintf("%s/%s/%d", name, kind, n), func(b *testing.B) {
					without := newPass(writers(messages, kind, n, 0))
					with := newPass(writers(messages, kind, n, wire.Shared(wire.Dictionaries())))
					for b.Loop() {
						without.round(b)
						with.round(b)
					}
					without.report(b, "")
					with.report(b, "-dict")
				})
			}
		}
	}
}

// framesMeasured bounds the frames of one line of the benchmark.
const framesMeasured = 5000

func heldOut(b *testing.B) map[string][]linkframes.Record {
	b.Helper()
	folder := os.Getenv("STARLING_DATA")
	if folder == "" {
		sample, err := linkframes.ReadFile("../cmd/edge-node/testdata/sample.jsonl")
		if err != nil {
			b.Fatal(err)
		}
		return map[string][]linkframes.Record{"sample": sample}
	}
	sets, err := linkframes.Split(folder)
	if err != nil {
		b.Fatal(err)
	}
	return map[string][]linkframes.Record{"later": sets.Later, "others": sets.Others, "dialogues": sets.Dialogues}
}

// writers write one frame each.
func writers(messages []linkframes.Message, kind string, n int, d wire.Dictionary) (all []func([]byte) []byte) {
	switch kind {
	case "propose":
		for _, f := range linkframes.Proposals(messages) {
			all = append(all, func(dst []byte) []byte { return wire.AppendCompressed(dst, f, d) })
		}
	case "events":
		for _, f := range linkframes.Events(messages, n) {
			all = append(all, func(dst []byte) []byte { return wire.AppendCompressedRun(dst, 7, wire.Run(f), d) })
		}
	case "append":
		for _, f := range linkframes.Appends(messages, n) {
			all = append(all, func(dst []byte) []byte { return wire.AppendCompressed(dst, f, d) })
		}
	}
	step := max(1, len(all)/framesMeasured)
	for i := range min(len(all), framesMeasured) {
		all[i] = all[i*step]
	}
	return all[:min(len(all), framesMeasured)]
}

// A pass writes and reads the same frames in each round.
type pass struct {
	write            []func([]byte) []byte
	stream           []byte    // all frames, written
	plain            int       // bytes of all frames without compression
	writing, reading []float64 // processor time of a round, ms per MB of plain
}

func newPass(write []func([]byte) []byte) *pass {
	p := &pass{write: write}
	for _, w := range write {
		p.stream = w(p.stream)
	}
	return p
}

func (p *pass) round(b *testing.B) {
	p.plain = 0
	var buf []byte
	began := processorTime(b)
	for _, w := range p.write {
		buf = w(buf[:0])
	}
	wrote := processorTime(b)
	r := wire.NewReader(bytes.NewReader(p.stream), wire.NodeFrame)
	for range p.write {
		payload, err := r.Payload()
		if err != nil {
			b.Fatal(err)
		}
		p.plain += len(payload) + 6
	}
	read := processorTime(b)
	perMB := func(d time.Duration) float64 { return d.Seconds() * 1e3 / (float64(p.plain) / 1e6) }
	p.writing, p.reading = append(p.writing, perMB(wrote-began)), append(p.reading, perMB(read-wrote))
}

// report prints how much smaller frames become, and what a MB of them takes to write
// and to read: the median of all rounds, and how far a half of them are apart.
func (p *pass) report(b *testing.B, of string) {
	if of == "" {
		b.ReportMetric(float64(p.plain)/float64(len(p.write)), "bytes/frame")
		b.ReportMetric(0, "ns/op")
	}
	b.ReportMetric(float64(p.plain)/float64(len(p.stream)), "ratio"+of)
	for what, took := range map[string][]float64{"write": p.writing, "read": p.reading} {
		slices.Sort(took)
		b.ReportMetric(took[len(took)/2], what+of+"-ms/MB")
		b.ReportMetric(took[len(took)*3/4]-took[len(took)/4], what+of+"-spread")
	}
}

// processorTime is what this process has used, by all its threads.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
