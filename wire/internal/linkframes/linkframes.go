// Package linkframes makes the frames that links carry out of recorded chat: to
// train a dictionary on, and to measure with. Only tests and the trainer use it.
package linkframes

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// Record is one line of a recorded chat. Dialogues have Lang, Dialog and Turn
// instead of Room and From.
type Record struct {
	T                      int64 // Unix milliseconds
	Room, From, Kind, Text string
	Lang, Dialog           string
	Turn                   int
}

// ReadFile reads the records of a file, plain or compressed with gzip.
func ReadFile(path string) (records []Record, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := io.Reader(f)
	if filepath.Ext(path) == ".gz" {
		if in, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	for dec := json.NewDecoder(bufio.NewReader(in)); ; {
		var r Record
		switch err := dec.Decode(&r); {
		case err == io.EOF:
			return records, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if r.Lang != "" {
			r.Room, r.From, r.Kind = "lang/"+r.Lang, fmt.Sprintf("%s-%d", r.Lang, r.Turn%7), "message"
		}
		records = append(records, r)
	}
}

// Message is what a node makes of a record: the command of its sender, and the
// event that followers get, both encoded.
type Message struct {
	Room           string
	Command, Event []byte
}

var kinds = map[string]room.Kind{"message": room.Message, "action": room.Action, "join": room.Join, "leave": room.Leave}

// Messages sends the records to rooms of the app demo in their order, with the ids
// of messages that our client would give them.
func Messages(records []Record) []Message {
	chance := rand.New(rand.NewPCG(1, 2))
	rooms := make(map[string]room.State)
	out := make([]Message, 0, len(records))
	for i, r := range records {
		at := r.T
		if at == 0 {
			at = 1_700_000_000_000 + int64(i)*700 // dialogues have no time
		}
		c := room.Command{
			ID: room.ID{App: "demo", Room: r.Room}, User: r.From, ClientMsgID: uuid7(chance, at),
			Kind: kinds[r.Kind], Content: r.Text, Access: room.Open,
		}
		next, done := rooms[r.Room].Apply(c, at+40, everybody{})
		if done.Event.Seq == 0 {
			continue // a record that no room takes, such as one without a name
		}
		rooms[r.Room] = next
		e := done.Event
		out = append(out, Message{Room: r.Room, Command: c.Append(nil), Event: wire.EncodeEvent(&wire.Event{
			Seq: e.Seq, User: e.User, Kind: wire.Kind(e.Kind), Type: e.Type, Content: e.Content,
			TsMs: e.TS, ClientMsgId: e.ClientMsgID, MsgId: e.MsgID,
		})})
	}
	return out
}

// everybody knows of no earlier message, and takes joins and leaves as they come.
type everybody struct{}

func (everybody) Receipt(string, string) (room.Receipt, bool) { return room.Receipt{}, false }
func (everybody) Member(string) bool                          { return false }

// uuid7 is an id of version 7 of a moment (RFC 9562).
func uuid7(chance *rand.Rand, at int64) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(at)<<16|0x7000|chance.Uint64N(1<<12))
	binary.BigEndian.PutUint64(b[8:], 1<<63|chance.Uint64()>>2)
	s := hex.EncodeToString(b[:])
	return strings.Join([]string{s[:8], s[8:12], s[12:16], s[16:20], s[20:]}, "-")
}

// Events puts n consecutive events of a room at a time together, as a follower
// gets them.
func Events(messages []Message, n int) (frames [][][]byte) {
	open := make(map[string][][]byte)
	for _, m := range messages {
		if open[m.Room] = append(open[m.Room], m.Event); len(open[m.Room]) == n {
			frames = append(frames, open[m.Room])
			delete(open, m.Room)
		}
	}
	return frames
}

// Proposals are the commands one by one, on their way to the leader of a group.
func Proposals(messages []Message) (frames []*wire.Frame) {
	for i, m := range messages {
		frames = append(frames, &wire.Frame{Id: uint64(1000 + i), Body: &wire.Frame_Propose{Propose: &wire.Propose{
			Group: uint32(1 + i%12), Command: m.Command, Attempt: 3,
		}}})
	}
	return frames
}

// Appends are entries of n commands each, on their way from the leader of a group
// to a voter. The data of an entry are as package consensus encodes them.
func Appends(messages []Message, n int) (frames []*wire.RaftMessage) {
	chance := rand.New(rand.NewPCG(3, 4))
	epoch := chance.Uint64()
	for i := 0; i+n <= len(messages); i += n {
		at := uint64(1_700_000_000_000 + 100*i)
		data := binary.AppendUvarint([]byte{1}, at)
		data = binary.BigEndian.AppendUint64(data, epoch)
		data = binary.AppendUvarint(data, uint64(i))
		data = binary.AppendUvarint(data, uint64(n))
		for _, m := range messages[i : i+n] {
			data = append(binary.AppendUvarint(data, uint64(len(m.Command))), m.Command...)
		}
		index := uint64(5000 + i)
		frames = append(frames, &wire.RaftMessage{Group: uint32(1 + i%12), Id: chance.Uint64(), Body: &wire.RaftMessage_Append{Append: &wire.AppendEntries{
			Term: 4, PrevLogIndex: index, PrevLogTerm: 4, LeaderCommit: index,
			Entries: []*wire.LogEntry{{Index: index + 1, Term: 4, Data: data, AppendedAtNs: int64(at) * 1e6}},
		}}})
	}
	return frames
}

// Payload is a frame without its header.
func Payload(frame []byte) []byte { return frame[6:] }
