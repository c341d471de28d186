package mesh

import (
	"crypto/tls"
	"errors"
	"slices"
	"sync"
	"time"
)

// tickets seals and opens the TLS sessions of clients, with keys that all nodes share,
// so that a client goes on with its TLS session at any of them. There is a key for each
// day, so that a ticket is good for one day to two.
type tickets struct {
	secret []byte
	keys   tls.Config // used for its ticket keys only

	mu  sync.Mutex
	day int64 // that keys are of, since 1970; 0 = none yet
}

// use makes config a config of connections that go on with sessions of others.
func (t *tickets) use(config *tls.Config) {
	config.WrapSession = func(s tls.ConnectionState, state *tls.SessionState) ([]byte, error) {
		return t.today().EncryptTicket(s, state)
	}
	config.UnwrapSession = func(ticket []byte, s tls.ConnectionState) (*tls.SessionState, error) {
		return t.today().DecryptTicket(ticket, s)
	}
}

// today returns the config with the keys of now. Those of yesterday, and of tomorrow for
// nodes whose clocks are ahead, only open.
func (t *tickets) today() *tls.Config {
	now := time.Now().UTC()
	t.mu.Lock()
	defer t.mu.Unlock()
	if day := now.Unix() / 86400; t.day != day {
		t.day = day
		var keys [][32]byte
		for _, off := range []int{0, -1, 1} {
			keys = append(keys, derive(t.secret, "session ticket "+now.AddDate(0, 0, off).Format(time.DateOnly)))
		}
		t.keys.SetSessionTicketKeys(keys)
	}
	return &t.keys
}

// ResumeTLS has clients on the TCP port go on with TLS sessions that they have with any
// node, as those on the socket do. What it returns is config for those of them that come
// back in a crowd, see Resumes: a handshake with X25519 only, a quarter cheaper than with
// X25519MLKEM768. The page docs/adr/0011 says why that is enough, if the session's own handshake had
// both: so whose ticket is not good is refused, which makes a client throw it away.
func (m *Mesh) ResumeTLS(config *tls.Config) (crowd *tls.Config) {
	m.tickets.use(config)
	crowd = config.Clone()
	crowd.CurvePreferences = []tls.CurveID{tls.X25519}
	crowd.Certificates = nil // none is needed to resume, and it is asked for before anything is answered
	crowd.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errStaleTicket }
	return crowd
}

var errStaleTicket = errors.New("mesh: the ticket is not good, and in a crowd there is no handshake without one")

// preSharedKey is the number of the extension by which a client offers to go on with a
// session (RFC 8446, section 4.2).
const preSharedKey = 41

// Resumes reports whether a client offers to go on with a session, and knows X25519.
// Whether its ticket is good is not known yet.
func Resumes(hello *tls.ClientHelloInfo) bool {
	return slices.Contains(hello.Extensions, preSharedKey) && slices.Contains(hello.SupportedCurves, tls.X25519)
}
