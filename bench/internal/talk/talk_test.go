package talk

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// TestFrames reads back what it writes, and refuses what is cut off.
func TestFrames(t *testing.T) {
	event := protowire.AppendVarint(protowire.AppendTag(nil, eventSeq, protowire.VarintType), 7)
	event = protowire.AppendString(protowire.AppendTag(event, eventContent, protowire.BytesType), "hello")
	events := protowire.AppendBytes(protowire.AppendTag(nil, eventsEvents, protowire.BytesType), event)
	b := appendFrame(nil, 5, frameEvents, events)
	var s scratch
	payload, err := nextFrame(bytes.NewReader(b), &s)
	if err != nil {
		t.Fatal(err)
	}
	f, err := splitFrame(payload)
	if err != nil || f.id != 5 || f.field != frameEvents {
		t.Fatalf("%+v, %v", f, err)
	}
	var got []string
	h := &Handler{Message: func(content []byte, seq uint64) { got = append(got, fmt.Sprint(seq, " ", string(content))) }}
	if err := messages(f.body, h); err != nil || !slices.Equal(got, []string{"7 hello"}) {
		t.Errorf("%q, %v", got, err)
	}
	for n := range b {
		if _, err := nextFrame(bytes.NewReader(b[:n]), &s); err == nil {
			t.Errorf("a frame of %d bytes, of which %d came", len(b), n)
		}
	}
	if err := messages(events[:len(events)-1], h); err == nil {
		t.Error("an event that is cut off")
	}
}

// heard is what a connection makes of what a server says.
func heard(t *testing.T, open func(net.Conn) Conn, says string) (messages []string, err error) {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		_, _ = theirs.Write([]byte(says))
		_ = theirs.Close()
	}()
	c := open(ours)
	defer c.Close()
	err = c.Read(&Handler{Message: func(content []byte, _ uint64) { messages = append(messages, string(content)) }})
	return messages, err
}

func TestNATSLines(t *testing.T) {
	open := func(c net.Conn) Conn { return &natsConn{line: newLine(c)} }
	for says, want := range map[string]struct {
		messages []string
		err      string
	}{
		"MSG room0 1 5\r\nhello\r\nMSG room0 1 2\r\nyo\r\n": {[]string{"hello", "yo"}, "EOF"},
		"INFO {}\r\nMSG room0 1 0\r\n\r\n":                  {[]string{""}, "EOF"},
		"-ERR 'Slow Consumer'\r\n":                          {nil, "Slow Consumer"},
		"MSG room0 1 x\r\n":                                 {nil, "begins with"},
		"MSG room0 1 3\r\nhello\r\n":                        {nil, "does not end"},
		"MSG room0 1 99999999999\r\n":                       {nil, "begins with"},
		"MSG room0 1 5\r\nhel":                              {nil, "EOF"},
	} {
		got, err := heard(t, open, says)
		if !slices.Equal(got, want.messages) || err == nil || !strings.Contains(err.Error(), want.err) {
			t.Errorf("%q: %q, %v", says, got, err)
		}
	}
}

func TestMQTTPackets(t *testing.T) {
	open := func(c net.Conn) Conn { return &mqttConn{line: newLine(c)} }
	long := strings.Repeat("x", 300)
	packet := func(kind byte, room, content string) string {
		return string(mqttPacket(nil, kind, mqttString(nil, room), []byte(content)))
	}
	for says, want := range map[string]struct {
		messages []string
		err      string
	}{
		packet(mqttPublish, "room0", "hello") + packet(mqttPublish, "room1", long): {[]string{"hello", long}, "EOF"},
		packet(mqttPublish|0x02, "room0", "hello"):                                 {nil, "QoS 0"},
		"\x30\x01\x00":                     {nil, "cut off"},
		"\x30\x03\x00\x05a":                {nil, "cut off"},
		"\x30\xff\xff\xff\xff\x7f":         {nil, "bytes"},
		"\xe0\x00":                         {nil, "sends 0xe0"},
		packet(mqttPublish, "r", long)[:9]: {nil, "EOF"},
	} {
		got, err := heard(t, open, says)
		if !slices.Equal(got, want.messages) || err == nil || !strings.Contains(err.Error(), want.err) {
			t.Errorf("%q: %q, %v", says, got, err)
		}
	}
}

// TestSameID sees that a message that is sent again over another connection has the id
// that it had, and that nobody else's has.
func TestSameID(t *testing.T) {
	publish := func(d *Dialer) (frame []byte) {
		s := d.newStarling()
		s.put = func(add func([]byte) []byte) error { frame = add(nil); return nil }
		if err := s.Publish(7, 0, "room", []byte("hello")); err != nil {
			t.Fatal(err)
		}
		return frame
	}
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	one, err1 := NewDialer(Target{CA: string(ca)})
	two, err2 := NewDialer(Target{CA: string(ca)})
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(publish(one), publish(one)) {
		t.Error("another id over another connection")
	}
	if bytes.Equal(publish(one), publish(two)) {
		t.Error("two have the same id")
	}
}
