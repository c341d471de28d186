package mesh

import (
	"crypto/tls"
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
// node, as those on the socket do.
func (m *Mesh) ResumeTLS(config *tls.Config) { m.tickets.use(config) }
