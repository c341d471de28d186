package oracle

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
)

// line is one record in JSON; one of its fields is set.
type line struct {
	Send   *Send   `json:"send,omitempty"`
	Seen   *Seen   `json:"seen,omitempty"`
	Follow *Follow `json:"follow,omitempty"`
	Read   *Read   `json:"read,omitempty"`
	State  *State  `json:"state,omitempty"`
}

// Encode writes a history, one record per line.
func (h *History) Encode(w io.Writer) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	for i := range h.Sends {
		_ = enc.Encode(line{Send: &h.Sends[i]}) // out keeps the first error
	}
	for i := range h.Follows {
		_ = enc.Encode(line{Follow: &h.Follows[i]})
	}
	for i := range h.Seen {
		_ = enc.Encode(line{Seen: &h.Seen[i]})
	}
	for i := range h.Reads {
		_ = enc.Encode(line{Read: &h.Reads[i]})
	}
	for i := range h.States {
		_ = enc.Encode(line{State: &h.States[i]})
	}
	return out.Flush()
}

// Decode adds the lines that Encode wrote to a history. The error names the
// record, 1 = the first, that it cannot read.
func (h *History) Decode(r io.Reader) error {
	dec := json.NewDecoder(bufio.NewReader(r))
	dec.DisallowUnknownFields()
	for n := 1; ; n++ {
		var l line
		err := dec.Decode(&l)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = h.addLine(l)
		}
		if err != nil {
			return fmt.Errorf("oracle: record %d: %w", n, err)
		}
	}
}

func (h *History) addLine(l line) error {
	set := 0
	if l.Send != nil {
		if o := l.Send.Outcome; o != Acked && o != Rejected && o != Unknown {
			return fmt.Errorf("a send ends acked, rejected or unknown, not %q", o)
		}
		h.add(*l.Send)
		set++
	}
	if l.Seen != nil {
		h.add(*l.Seen)
		set++
	}
	if l.Follow != nil {
		h.add(*l.Follow)
		set++
	}
	if l.Read != nil {
		h.add(*l.Read)
		set++
	}
	if l.State != nil {
		h.add(*l.State)
		set++
	}
	if set != 1 {
		return fmt.Errorf("%d records in one line", set)
	}
	return nil
}

// exported is a line of an export, or of a file of acks, which has less in it.
type exported struct {
	Room string  `json:"room"`
	Seq  uint64  `json:"seq"`
	User string  `json:"user"`
	Text *string `json:"text"`
	ID   string  `json:"client_msg_id"`
}

// AddAcks adds the lines of a file of acks, objects with room, client_msg_id
// and seq, as sends that took place before any export. A last line that was
// cut short is left out: its sender had not counted it.
func (h *History) AddAcks(r io.Reader) error {
	return eachExported(r, true, func(e exported) {
		h.add(Send{Room: e.Room, ID: e.ID, Seq: e.Seq, Outcome: Acked, Call: 1, Return: math.MaxInt64 - 1})
	})
}

// AddExport adds what `edge-node export ROOM --json` wrote, as the complete
// reading of an observer after everything else.
func (h *History) AddExport(observer, room string, r io.Reader) error {
	read := Read{Observer: observer, Room: room, Call: math.MaxInt64, Return: math.MaxInt64, Complete: true}
	err := eachExported(r, false, func(e exported) {
		seen := Seen{Observer: observer, Room: room, Seq: e.Seq, User: e.User, ID: e.ID}
		if e.Text != nil {
			seen.Hash = Sum(*e.Text)
		}
		h.add(seen)
		read.Head = max(read.Head, e.Seq)
	})
	h.add(read)
	return err
}

func eachExported(r io.Reader, mayBeCut bool, add func(exported)) error {
	lines := bufio.NewReader(r)
	for n := 1; ; n++ {
		b, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && (len(b) == 0 || mayBeCut) {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("oracle: line %d: %w", n, err)
		}
		if len(b) == 1 { // after a line that was cut short and ended later
			continue
		}
		var e exported
		if err := json.Unmarshal(b, &e); err != nil {
			if mayBeCut {
				continue // a writer that was killed, and its successor
			}
			return fmt.Errorf("oracle: line %d: %w", n, err)
		}
		add(e)
	}
}
