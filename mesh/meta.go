package mesh

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// metaVersion is the version of the encoding of meta. A field can be added at
// the end without raising it: readers ignore what follows what they know.
const metaVersion = 1

// metaAddr bounds the address in a meta, in bytes.
const metaAddr = 255

// metaAddrOutbound bounds it for a node that has parents to name, so that they fit.
const metaAddrOutbound = 100

var errBadMeta = errors.New("mesh: malformed description of a node")

// meta is what a node says of itself in gossip.
type meta struct {
	instance              uint64 // tells processes with one id apart; a later one has a larger number
	region, addr, version string
	keys                  uint64 // the version of the keys of gossip that it has
	flags                 byte
	parents               []string // over whom it is reached, if it cannot be dialled
	signed, signature     []byte   // all of the above, and what the node's key made of it
}

// The flags of a meta. A reader ignores those that it does not know.
const (
	flagDraining byte = 1 << iota
	flagOutbound
)

// state is that of a node which has just said this.
func (m meta) state() State {
	if m.flags&flagDraining != 0 {
		return Draining
	}
	return Alive
}

// body returns what is signed.
func (m meta) body() []byte {
	b := binary.BigEndian.AppendUint64([]byte{metaVersion}, m.instance)
	for _, s := range []string{m.region, m.addr, m.version} {
		b = append(append(b, byte(len(s))), s...)
	}
	b = append(binary.BigEndian.AppendUint64(b, m.keys), m.flags, byte(len(m.parents)))
	for _, id := range m.parents {
		b = append(append(b, byte(len(id))), id...)
	}
	return b
}

// encode returns m signed with a node's key. It takes at most 512 bytes: New has
// checked the lengths, and a signature has up to 72.
func (m meta) encode(cluster, node string, key crypto.Signer) ([]byte, error) {
	b := m.body()
	signature, err := key.Sign(rand.Reader, metaDigest(cluster, node, b), crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("mesh: signature: %w", err)
	}
	return append(append(b, byte(len(signature))), signature...), nil
}

// metaDigest binds a description to the node that it is of.
func metaDigest(cluster, node string, body []byte) []byte {
	h := sha256.New()
	fmt.Fprintf(h, "starling description\n%s\n%s\n", cluster, node)
	h.Write(body)
	return h.Sum(nil)
}

// signedBy reports whether the key of a node has signed what is said of it.
func (m meta) signedBy(cluster, node string, key *ecdsa.PublicKey) bool {
	return ecdsa.VerifyASN1(key, metaDigest(cluster, node, m.signed), m.signature)
}

// decodeMeta returns ErrNewerVersion or errBadMeta for what it cannot read.
func decodeMeta(b []byte) (meta, error) {
	if len(b) > 0 && b[0] > metaVersion {
		return meta{}, fmt.Errorf("%w: description of a node, version %d", ErrNewerVersion, b[0])
	}
	if len(b) < 9 || b[0] != metaVersion {
		return meta{}, errBadMeta
	}
	m := meta{instance: binary.BigEndian.Uint64(b[1:])}
	all := b
	b = b[9:]
	var ok bool
	for _, field := range []*string{&m.region, &m.addr, &m.version} {
		if *field, b, ok = cutString(b); !ok {
			return meta{}, errBadMeta
		}
	}
	if m.instance == 0 || len(b) < 10 || b[9] > parentsMax {
		return meta{}, errBadMeta
	}
	m.keys, m.flags = binary.BigEndian.Uint64(b), b[8]
	m.parents, b = make([]string, b[9]), b[10:]
	for i := range m.parents {
		if m.parents[i], b, ok = cutString(b); !ok {
			return meta{}, errBadMeta
		}
	}
	m.signed = all[:len(all)-len(b)]
	signature, _, ok := cutString(b)
	if !ok {
		return meta{}, errBadMeta
	}
	m.signature = []byte(signature)
	return m, nil
}

// cutString returns what follows its length in one byte, and the rest.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return "", nil, false
	}
	end := 1 + int(b[0])
	return string(b[1:end]), b[end:], true
}
