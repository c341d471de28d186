package wire

import "google.golang.org/protobuf/encoding/protowire"

// An event is encoded once per node, and the bytes are shared by all who
// follow its room: AppendEvents puts a frame together from such encodings.

// EncodeEvent returns the encoding of e that AppendEvents takes.
func EncodeEvent(e *Event) []byte {
	b, err := e.MarshalVT()
	if err != nil {
		panic("wire: " + err.Error()) // only if e changes meanwhile
	}
	return b
}

// EventOverhead bounds what one event adds to a frame beyond its encoding.
const EventOverhead = 1 + 4

// eventsOverhead bounds the rest of an Events frame: two tags, two lengths and
// the follow.
const eventsOverhead = 1 + 4 + 1 + 10

// Field numbers of Frame.events, Events.follow and Events.events.
const (
	frameEvents  = 11
	eventsFollow = 1
	eventsEvents = 2
)

// EventsSize returns the size in bytes of the frame that AppendEvents makes,
// at most; n is the sum of the encodings' lengths.
func EventsSize(count, n int) int { return headerLen + eventsOverhead + count*EventOverhead + n }

// AppendEvents appends to dst the frame that carries the encoded events to the
// follow of that id. It equals AppendMessage of the same frame, byte for byte.
func AppendEvents(dst []byte, follow uint64, events [][]byte) []byte {
	body := 0
	if follow != 0 {
		body += 1 + protowire.SizeVarint(follow)
	}
	for _, e := range events {
		body += 1 + protowire.SizeBytes(len(e))
	}
	dst = appendHeader(dst, 0, 1+protowire.SizeBytes(body))
	dst = protowire.AppendTag(dst, frameEvents, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(body))
	if follow != 0 {
		dst = protowire.AppendTag(dst, eventsFollow, protowire.VarintType)
		dst = protowire.AppendVarint(dst, follow)
	}
	for _, e := range events {
		dst = protowire.AppendTag(dst, eventsEvents, protowire.BytesType)
		dst = protowire.AppendBytes(dst, e)
	}
	return dst
}

// AppendCompressedEvents is AppendEvents as AppendCompressed is AppendMessage.
func AppendCompressedEvents(dst []byte, follow uint64, events [][]byte, d Dictionary) []byte {
	return pack(AppendEvents(dst, follow, events), len(dst), d)
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

// eventTrace is what comes before the trace id in an encoded event: the tag of the
// field Event.trace, and its length.
const eventTrace = "\x4a\x10"

// EventTrace returns the trace id of an encoded event, which aliases b; nil if it is
// not traced. The id is the last field, so that the answer for all others is two
// comparisons; those that pass by chance are decoded.
func EventTrace(b []byte) []byte {
	at := len(b) - TraceBytes - len(eventTrace)
	if at < 0 || b[at] != eventTrace[0] || b[at+1] != eventTrace[1] {
		return nil
	}
	if e, err := DecodeEvent(b); err != nil || len(e.Trace) != TraceBytes {
		return nil
	}
	return b[len(b)-TraceBytes:]
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
