package room

import "encoding/binary"

// The formats of commands. The first is version, kind, access, then app, room,
// user, client_msg_id, type and content, each a uvarint length and bytes. In the
// second placement and group, big-endian, come after the access; it is
// written only where there is something to say, so that the release before reads
// the rest. In the third the trace comes after these two.
const (
	plainVersion  = 1
	placedVersion = 2
	tracedVersion = 3
	placedBytes   = 8 + 4
	// tracedFrom is where the trace is in a command that has one.
	tracedFrom = 3 + placedBytes
	// commandVersion is the newest of these.
	commandVersion = tracedVersion
)

// format is the first format that can hold c.
func (c *Command) format() byte {
	switch {
	case c.Trace != "":
		return tracedVersion
	case c.Placement != 0 || c.Group != 0 || c.Kind == Claim || c.Kind == Elsewhere || c.Kind == Renew:
		return placedVersion
	}
	return plainVersion
}

// Trace returns the trace id of an encoded command, which aliases b; nil if it is not
// traced.
func Trace(b []byte) []byte {
	if len(b) < tracedFrom+TraceBytes || b[0] != tracedVersion {
		return nil
	}
	return b[tracedFrom : tracedFrom+TraceBytes]
}

// Append appends the encoding of c to dst.
func (c Command) Append(dst []byte) []byte {
	format := c.format()
	dst = append(dst, format, byte(c.Kind), byte(c.Access))
	if format >= placedVersion {
		dst = binary.BigEndian.AppendUint64(dst, c.Placement)
		dst = binary.BigEndian.AppendUint32(dst, c.Group)
	}
	if format == tracedVersion {
		var trace [TraceBytes]byte // whatever c has: it may not be valid
		copy(trace[:], c.Trace)
		dst = append(dst, trace[:]...)
	}
	dst = appendString(dst, c.ID.App)
	dst = appendString(dst, c.ID.Room)
	dst = appendString(dst, c.User)
	dst = appendString(dst, c.ClientMsgID)
	dst = appendString(dst, c.Type)
	return appendString(dst, c.Content)
}

// DecodeCommand decodes what Append made. The error is a *Refusal: bad_request
// for what is cut short, has bytes left over or is not in the one canonical
// form, too_large for what no valid command needs, newer_format for a format
// of a later release. The fields are not validated.
func DecodeCommand(b []byte) (Command, error) {
	c, r := decodeCommand(b)
	if r != nil {
		return Command{}, r
	}
	return c, nil
}

func decodeCommand(b []byte) (c Command, r *Refusal) {
	switch {
	case len(b) == 0 || b[0] == 0:
		return c, refuse(CodeBadRequest, "command has no version")
	case b[0] > commandVersion: // first of all: the rules below are those of this version
		return c, refuse(CodeNewerFormat, "command has format %d, this release knows %d", b[0], commandVersion)
	case len(b) > commandBytes:
		return c, refuse(CodeTooLarge, "command has %d bytes, the limit is %d", len(b), commandBytes)
	case len(b) < 3:
		return c, refuse(CodeBadRequest, "command is cut short")
	}
	c.Kind, c.Access = Kind(b[1]), Access(b[2])
	fields := b[3:]
	if b[0] >= placedVersion {
		if len(fields) < placedBytes {
			return c, refuse(CodeBadRequest, "command is cut short")
		}
		c.Placement, c.Group = binary.BigEndian.Uint64(fields), binary.BigEndian.Uint32(fields[8:])
		fields = fields[placedBytes:]
	}
	if b[0] == tracedVersion {
		if len(fields) < TraceBytes {
			return c, refuse(CodeBadRequest, "command is cut short")
		}
		c.Trace, fields = string(fields[:TraceBytes]), fields[TraceBytes:]
	}
	if c.newer() == nil && c.format() != b[0] {
		return c, refuse(CodeBadRequest, "%v of format %d", c.Kind, b[0])
	}
	// One allocation for all other fields.
	rest := string(fields)
	for _, field := range [...]*string{&c.ID.App, &c.ID.Room, &c.User, &c.ClientMsgID, &c.Type, &c.Content} {
		n, size := uvarint(rest)
		if size == 0 || n > uint64(len(rest)-size) {
			return c, refuse(CodeBadRequest, "command is cut short")
		}
		if size > 1 && n < 1<<(7*(size-1)) {
			return c, refuse(CodeBadRequest, "command has a padded length")
		}
		*field, rest = rest[size:size+int(n)], rest[size+int(n):]
	}
	if rest != "" {
		return c, refuse(CodeBadRequest, "command has %d bytes too many", len(rest))
	}
	return c, nil
}

// newer says why a later release may do with c what this one cannot, nil if it
// may not. A door refuses such a command; in the log it is of a release whose
// replicas have applied it.
func (c *Command) newer() *Refusal {
	switch {
	case c.Kind > Create && c.Kind < Claim || c.Kind > Renew:
		return refuse(CodeNewerFormat, "command has %v, which this release does not know", c.Kind)
	case c.Access > Members:
		return refuse(CodeNewerFormat, "command has %v, which this release does not know", c.Access)
	}
	return nil
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// uvarint is binary.Uvarint for strings, of values below 2^28; size 0 means
// that there is none.
func uvarint(s string) (n uint64, size int) {
	for i := 0; i < len(s) && i < 4; i++ {
		n |= uint64(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return n, i + 1
		}
	}
	return 0, 0
}
