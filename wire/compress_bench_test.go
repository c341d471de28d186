package wire_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/starling-im/starling/wire"
	"github.com/starling-im/starling/wire/internal/linkframes"
)

// BenchmarkCompress writes and reads frames of chat that the dictionary was not
// trained on: of the folder STARLING_DATA, or of the sample that is shipped.
func BenchmarkCompress(b *testing.B) {
	for name, records := range heldOut(b) {
		messages := linkframes.Messages(records)
		for _, kind := range []string{"propose", "events", "append"} {
			for _, n := range []int{1, 10, 100} {
				if kind == "propose" && n > 1 {
					continue
				}
				for _, d := range []wire.Dictionary{0, wire.Shared(wire.Dictionaries())} {
					b.Run(fmt.Sprintf("%s/%s/%d/dictionary=%d", name, kind, n, d), func(b *testing.B) {
						measureFrames(b, writers(messages, kind, n, d))
					})
				}
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
			all = append(all, func(dst []byte) []byte { return wire.AppendCompressedEvents(dst, 7, f, d) })
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

// measureFrames prints what a frame costs to write and to read, and how much
// smaller it becomes.
func measureFrames(b *testing.B, write []func([]byte) []byte) {
	plain, packed := 0, 0
	var stream, buf []byte
	for _, w := range write {
		buf = w(buf[:0])
		stream = append(stream, buf...)
	}
	packed = len(stream)
	var reading time.Duration
	for rounds := 0; b.Loop(); rounds++ {
		for _, w := range write {
			buf = w(buf[:0])
		}
		b.StopTimer()
		began := time.Now()
		r := wire.NewReader(bytes.NewReader(stream), wire.NodeFrame)
		for range write {
			payload, err := r.Payload()
			if err != nil {
				b.Fatal(err)
			}
			if rounds == 0 {
				plain += len(payload) + 6
			}
		}
		reading += time.Since(began)
		b.StartTimer()
	}
	frames := float64(b.N * len(write))
	b.ReportMetric(float64(plain)/float64(len(write)), "bytes/frame")
	b.ReportMetric(float64(plain)/float64(packed), "ratio")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/frames, "write-µs/frame")
	b.ReportMetric(float64(reading.Microseconds())/frames, "read-µs/frame")
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/(float64(plain)*float64(b.N)/1e6), "write-ms/MB")
	b.ReportMetric(0, "ns/op")
}
