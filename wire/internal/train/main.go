// Command train makes the zstd dictionary of links out of recorded chat:
//
//	go run ./wire/internal/train -id 32769 FOLDER wire/dictionaries/32769
//
// FOLDER has chat/chat_irc.jsonl.gz and chat/text_multilang.jsonl.gz, in the formats
// that `edge-node replay` reads. A dictionary that was released is never made anew
// under its id: nodes would not understand each other.
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/klauspost/compress/dict"
	"github.com/klauspost/compress/zstd"

	"github.com/starling-im/starling/wire"
	"github.com/starling-im/starling/wire/internal/linkframes"
)

// sampleBytes is how much of each kind of frame is looked at.
const sampleBytes = 1 << 20

func main() {
	id := flag.Uint("id", 32769, "of the dictionary; 32768 to 2^31-1 are free for private use")
	size := flag.Int("bytes", 16<<10, "of its content")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: train [-id N] [-bytes N] FOLDER FILE")
		os.Exit(2)
	}
	if err := train(flag.Arg(0), flag.Arg(1), uint32(*id), *size); err != nil {
		fmt.Fprintln(os.Stderr, "train:", err)
		os.Exit(1)
	}
}

func train(folder, file string, id uint32, size int) error {
	sets, err := linkframes.Split(folder)
	if err != nil {
		return err
	}
	chance := rand.New(rand.NewPCG(1, 1))
	var samples [][]byte
	for _, part := range []struct {
		records []linkframes.Record
		bytes   int
	}{{sets.Train, sampleBytes}, {sets.TrainDialogues, sampleBytes / 6}} {
		for _, frames := range kinds(linkframes.Messages(part.records)) {
			samples = append(samples, pick(frames, part.bytes, chance)...)
		}
	}
	b, err := dict.BuildZstdDict(samples, dict.Options{
		MaxDictSize: size, HashBytes: 6, ZstdDictID: id, ZstdDictCompat: true, ZstdLevel: zstd.SpeedFastest,
	})
	if err != nil {
		return err
	}
	fmt.Printf("dictionary %d: %d bytes, from %d frames\n", id, len(b), len(samples))
	return os.WriteFile(file, b, 0o644)
}

// kinds are the payloads of the frames that links carry most.
func kinds(messages []linkframes.Message) [][][]byte {
	var events, proposals, appends [][]byte
	for _, n := range []int{1, 10} {
		for _, e := range linkframes.Events(messages, n) {
			events = append(events, linkframes.Payload(wire.AppendRun(nil, 7, wire.Run(e))))
		}
		for _, a := range linkframes.Appends(messages, n) {
			appends = append(appends, linkframes.Payload(wire.AppendMessage(nil, a)))
		}
	}
	for _, p := range linkframes.Proposals(messages) {
		proposals = append(proposals, linkframes.Payload(wire.AppendMessage(nil, p)))
	}
	return [][][]byte{events, proposals, appends}
}

// pick takes frames by chance, so many bytes of them at most.
func pick(frames [][]byte, bytes int, chance *rand.Rand) (picked [][]byte) {
	for _, i := range chance.Perm(len(frames)) {
		if bytes -= len(frames[i]); bytes < 0 {
			break
		}
		picked = append(picked, frames[i])
	}
	return picked
}
