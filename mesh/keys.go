package mesh

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/starling-im/starling/wire"
)

// keysBytes bounds an answer about the keys of gossip.
const keysBytes = 1 << 10

// SetGossipKeys replaces the keys of gossip, of which the first is used to send, and
// tells the others which version of them this node has.
func (m *Mesh) SetGossipKeys(version uint64, keys [][]byte) error {
	for _, k := range keys {
		if err := m.keyring.AddKey(k); err != nil {
			return fmt.Errorf("%w: %w", ErrGossipKey, err)
		}
	}
	if err := m.keyring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("%w: %w", ErrGossipKey, err)
	}
	for _, old := range slices.Clone(m.keyring.GetKeys()) { // it is the ring's own list
		if !slices.ContainsFunc(keys, func(k []byte) bool { return string(k) == string(old) }) {
			if err := m.keyring.RemoveKey(old); err != nil {
				return fmt.Errorf("%w: %w", ErrGossipKey, err)
			}
		}
	}
	m.gossip.say(func(self *meta) { self.keys = version })
	return nil
}

// serveKeys tells a node, which has proved who it is, the keys of gossip: one that was
// away while they changed cannot say by gossip that it is back.
func (m *Mesh) serveKeys(_ context.Context, _ string, s *Stream) {
	b := binary.BigEndian.AppendUint64(nil, m.gossip.keys())
	primary := m.keyring.GetPrimaryKey()
	others := slices.DeleteFunc(slices.Clone(m.keyring.GetKeys()), func(k []byte) bool { return string(k) == string(primary) })
	for _, k := range append([][]byte{primary}, others...) {
		b = append(append(b, byte(len(k))), k...)
	}
	_ = s.SetWriteDeadline(time.Now().Add(headerWithin))
	_, _ = s.Write(b)
}

// learnKeys asks whoever is at an address for the keys of gossip, and takes them if
// they are newer than those that are here.
func (m *Mesh) learnKeys(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	conn, node, err := m.dial(ctx, addr, alpnJoin, "")
	if err != nil {
		return err
	}
	defer conn.CloseWithError(wire.CloseNormal, "")
	s, err := openStream(ctx, m.newLink(node, conn), StreamKeys)
	if err != nil {
		return err
	}
	_ = s.SetReadDeadline(time.Now().Add(headerWithin))
	b, err := io.ReadAll(io.LimitReader(s, keysBytes))
	if err != nil {
		return err
	}
	version, keys, err := decodeKeys(b)
	if err != nil || version <= m.gossip.keys() {
		return err
	}
	m.log.Info("the keys of gossip have changed meanwhile", "version", version, "told_by", node)
	return m.SetGossipKeys(version, keys)
}

func decodeKeys(b []byte) (version uint64, keys [][]byte, err error) {
	if len(b) < 9 {
		return 0, nil, fmt.Errorf("%w: malformed keys", ErrGossipKey)
	}
	version, b = binary.BigEndian.Uint64(b), b[8:]
	for len(b) > 0 {
		n := 1 + int(b[0])
		if len(b) < n {
			return 0, nil, fmt.Errorf("%w: malformed keys", ErrGossipKey)
		}
		keys, b = append(keys, b[1:n]), b[n:]
	}
	return version, keys, nil
}
