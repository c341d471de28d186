package talk

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// The packets of MQTT 3.1.1 that are of use here, with their flags.
const (
	mqttConnect   = 0x10
	mqttConnAck   = 0x20
	mqttPublish   = 0x30 // QoS 0
	mqttSubscribe = 0x82
	mqttSubAck    = 0x90
)

// A mqttConn speaks MQTT 3.1.1 with QoS 0 and a session that begins anew.
type mqttConn struct {
	*line
	body scratch
}

func greetMQTT(ctx context.Context, c net.Conn, config *tls.Config, user, host string) (Conn, error) {
	t, err := encrypt(ctx, c, config)
	if err != nil {
		return nil, err
	}
	m := &mqttConn{line: newLine(t)}
	flags, body := byte(0x02), []byte(nil) // clean session
	body = mqttString(body, user)
	if host != "" {
		flags |= 0xc0 // a name and a password
		body = mqttString(mqttString(body, user+"@"+host), "bench")
	}
	head := append(mqttString(nil, "MQTT"), 4, flags, 0, 0) // no keep-alive
	if err := m.say(func(out []byte) []byte { return mqttPacket(out, mqttConnect, head, body) }); err != nil {
		return nil, err
	}
	kind, answer, err := m.packet()
	switch {
	case err != nil:
		return nil, err
	case kind != mqttConnAck || len(answer) != 2 || answer[1] != 0:
		return nil, fmt.Errorf("the server answers CONNECT with %#x %x", kind, answer)
	}
	return m, nil
}

func mqttString(out []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(out, uint16(len(s))), s...)
}

func mqttPacket(out []byte, kind byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	out = binary.AppendUvarint(append(out, kind), uint64(n))
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// mqttAtOnce is how many rooms one SUBSCRIBE names.
const mqttAtOnce = 32

func (m *mqttConn) Follow(rooms []string, _ uint64, h *Handler) error {
	for len(rooms) > 0 {
		n := min(len(rooms), mqttAtOnce)
		body := []byte{0, 1} // the packet's id
		for _, room := range rooms[:n] {
			body = append(mqttString(body, room), 0)
		}
		rooms = rooms[n:]
		if err := m.say(func(out []byte) []byte { return mqttPacket(out, mqttSubscribe, body) }); err != nil {
			return err
		}
		for {
			kind, answer, err := m.packet()
			if err != nil {
				return err
			}
			if kind != mqttSubAck {
				if err := m.handle(kind, answer, h); err != nil {
					return err
				}
				continue
			}
			for _, granted := range answer[min(2, len(answer)):] {
				if granted != 0 {
					return fmt.Errorf("the server answers SUBSCRIBE with %#x", granted)
				}
			}
			break
		}
	}
	return nil
}

func (m *mqttConn) Publish(_ uint64, _ uint32, room string, content []byte) error {
	return m.put(func(out []byte) []byte {
		out = binary.AppendUvarint(append(out, mqttPublish), uint64(2+len(room)+len(content)))
		return append(mqttString(out, room), content...)
	})
}

func (m *mqttConn) Read(h *Handler) error {
	for {
		kind, body, err := m.packet()
		if err == nil {
			err = m.handle(kind, body, h)
		}
		if err != nil {
			return err
		}
	}
}

// handle takes a packet that answers nothing.
func (m *mqttConn) handle(kind byte, body []byte, h *Handler) error {
	if kind&0xf0 != mqttPublish {
		return fmt.Errorf("the server sends %#x", kind)
	}
	if len(body) < 2 || len(body) < 2+int(binary.BigEndian.Uint16(body)) || kind&0x06 != 0 {
		return errors.New("a message is cut off, or not of QoS 0")
	}
	h.Message(body[2+binary.BigEndian.Uint16(body):], 0)
	return nil
}

// packet reads the next packet, whose body is good until the next call.
func (m *mqttConn) packet() (kind byte, body []byte, err error) {
	if kind, err = m.in.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(m.in)
	if err != nil {
		return 0, nil, err
	}
	if n > maxMessage {
		return 0, nil, fmt.Errorf("a packet of %d bytes", n)
	}
	body = m.body.of(int(n))
	_, err = io.ReadFull(m.in, body)
	return kind, body, err
}
