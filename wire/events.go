package wire

import "google.golang.org/protobuf/encoding/protowire"

// An event is encoded once per node, and the bytes are shared by all who
// follow its room.

// EncodeEvent returns the encoding of e that a run takes.
func EncodeEvent(e *Event) []byte {
	b, err := e.MarshalVT()
	if err != nil {
		panic("wire: " + err.Error()) // only if e changes meanwhile
	}
	return b
}

// Field numbers of Frame.events, Events.follow and Events.events.
const (
	frameEvents  = 11
	eventsFollow = 1
	eventsEvents = 2
)

// A run is the encodings of consecutive events one after the other, as an Events frame
// has them: it is made once, and each follower's frame is a header and a part of it.

// RunSize returns what an event of n bytes takes in a run.
func RunSize(n int) int { return 1 + protowire.SizeBytes(n) }

// Run makes a run of events.
func Run(events [][]byte) (run []byte) {
	for _, e := range events {
		run = AppendToRun(run, e)
	}
	return run
}

// AppendToRun appends an event's encoding to a run.
func AppendToRun(run, event []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(run, eventsEvents, protowire.BytesType), event)
}

// SplitRun returns the encodings in a run, which alias it.
func SplitRun(run []byte) (events [][]byte) {
	for len(run) > 0 {
		e, n := protowire.ConsumeBytes(run[1:])
		if n < 0 {
			panic("wire: a run is cut off")
		}
		events, run = append(events, e), run[1+n:]
	}
	return events
}

// AppendRun appends to dst the frame that carries a run to the follow of that id. It
// equals AppendMessage of the same frame, byte for byte.
func AppendRun(dst []byte, follow uint64, run []byte) []byte {
	body := len(run)
	if follow != 0 {
		body += 1 + protowire.SizeVarint(follow)
	}
	dst = appendHeader(dst, 0, 1+protowire.SizeBytes(body))
	dst = protowire.AppendTag(dst, frameEvents, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(body))
	if follow != 0 {
		dst = protowire.AppendTag(dst, eventsFollow, protowire.VarintType)
		dst = protowire.AppendVarint(dst, follow)
	}
	return append(dst, run...)
}

// AppendCompressedRun is AppendRun as AppendCompressed is AppendMessage.
func AppendCompressedRun(dst []byte, follow uint64, run []byte, d Dictionary) []byte {
	return pack(AppendRun(dst, follow, run), len(dst), d)
}

// SplitEvents takes an Events frame's payload apart without decoding the
// events; the encodings alias payload. It returns ok = false for every other
// frame and for a payload that is malformed: decode those as a Frame.
func SplitEvents(payload []byte) (follow uint64, events [][]byte, ok bool) {
	num, typ, n := protowire.ConsumeTag(payload)
	if n < 0 || num != frameEvents || typ != protowire.BytesType {
		return 0, nil, false
	}
	body, m := protowire.ConsumeBytes(payload[n:])
	if m < 0 || n+m != len(payload) {
		return 0, nil, false
	}
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 {
			return 0, nil, false
		}
		switch {
		case num == eventsFollow && typ == protowire.VarintType:
			v, m := protowire.ConsumeVarint(body[n:])
			if m < 0 {
				return 0, nil, false
			}
			follow, body = v, body[n+m:]
		case num == eventsEvents && typ == protowire.BytesType:
			e, m := protowire.ConsumeBytes(body[n:])
			if m < 0 {
				return 0, nil, false
			}
			events, body = append(events, e), body[n+m:]
		default:
			return 0, nil, false
		}
	}
	return follow, events, true
}

// DecodeEvent decodes one encoding that SplitEvents returned.
func DecodeEvent(b []byte) (*Event, error) {
	e := new(Event)
	if err := e.UnmarshalVT(b); err != nil {
		return nil, Errorf(CodeProtocol, "event cannot be decoded: %v", err)
	}
	return e, nil
}

// TraceBytes is the size of a trace id.
const TraceBytes = 16

// Field numbers of Event.client_msg_id and Event.trace.
const (
	eventClientMsgID = 7
	eventTraceField  = 9
)

// eventTrace is what comes before the trace id in an encoded event: the tag of the
// field Event.trace, and its length.
const eventTrace = "\x4a\x10"

// EventTrace returns the trace id of an encoded event, which aliases b; nil if it is
// not traced. The id is the last field, so that the answer for all others is two
// comparisons; in those that pass by chance it is looked for. It takes no memory.
func EventTrace(b []byte) []byte {
	at := len(b) - TraceBytes - len(eventTrace)
	if at < 0 || b[at] != eventTrace[0] || b[at+1] != eventTrace[1] {
		return nil
	}
	if trace := bytesField(b, eventTraceField); len(trace) == TraceBytes {
		return trace
	}
	return nil
}

// EventClientMsgID returns the client_msg_id of an encoded event, which aliases b; nil if
// there is none.
func EventClientMsgID(b []byte) []byte { return bytesField(b, eventClientMsgID) }

// bytesField returns the value of a field of an encoded message, which aliases b; nil if
// there is none or b is malformed.
func bytesField(b []byte, field protowire.Number) (value []byte) {
	for len(b) > 0 {
		num, typ, tag := protowire.ConsumeTag(b)
		if tag < 0 {
			return nil
		}
		n := protowire.ConsumeFieldValue(num, typ, b[tag:])
		if n < 0 {
			return nil
		}
		if num == field && typ == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(b[tag:])
		}
		b = b[tag+n:]
	}
	return value
}

// EventSeq returns the seq of an encoded event, 0 if there is none.
func EventSeq(b []byte) uint64 {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 || num != 1 || typ != protowire.VarintType {
		return 0
	}
	seq, m := protowire.ConsumeVarint(b[n:])
	if m < 0 {
		return 0
	}
	return seq
}
