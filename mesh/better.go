package mesh

import (
	"context"
	"errors"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	// lookEvery is how often the dialling side looks whether a link could go better.
	lookEvery = time.Second
	// straightEvery is how often UDP is tried again where a link is not over it.
	straightEvery = 30 * time.Second
	// muteFor is how long a link is sent to without an answer before another path is
	// tried beside it; and again after as long. muteAfter packets must have been sent.
	muteFor   = 3 * time.Second
	muteAfter = 3
)

// health is what is known of a link that is served, to find a better one.
type health struct {
	conn           *quic.Conn
	heard          time.Time // until when it was heard, or too little was sent for an answer
	tried          time.Time // when UDP was
	received, sent uint64    // packets, until heard
}

// mute reports whether the link is sent to and nothing comes back. Another path is
// then to be tried; the link stays, for it may only be slow.
func (h *health) mute(now time.Time, stats quic.ConnectionStats) bool {
	if stats.PacketsReceived != h.received {
		h.heard, h.received, h.sent = now, stats.PacketsReceived, stats.PacketsSent
		return false
	}
	if stats.PacketsSent < h.sent+muteAfter {
		h.heard = now // it is quiet: nothing is owed an answer yet
		return false
	}
	if now.Sub(h.heard) < muteFor {
		return false
	}
	h.heard, h.sent = now, stats.PacketsSent
	return true
}

// endMute closes a link that this node waits for the other to dial, once it is mute: the
// other may hear this node, and then does not notice.
func (m *Mesh) endMute(l *link) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	h := health{conn: l.conn, heard: time.Now()}
	for {
		select {
		case now := <-look.C:
			if h.mute(now, l.conn.ConnectionStats()) {
				_ = l.conn.CloseWithError(closeMoved, "nothing is heard over this link")
			}
		case <-l.conn.Context().Done():
			return
		}
	}
}

// whileUp returns a context that ends with a link, for what is not worth a wait without
// it; but not where the other side has replaced it, for that is by what was dialled.
func whileUp(ctx context.Context, conn *quic.Conn) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(conn.Context(), func() {
		var app *quic.ApplicationError
		if !errors.As(context.Cause(conn.Context()), &app) || !app.Remote || app.ErrorCode != closeReplaced {
			cancel()
		}
	})
	return ctx, func() { stop(); cancel() }
}

// findBetter returns a better connection to a node, nil if there is none now.
func (m *Mesh) findBetter(ctx context.Context, h *health, id, addr string) *quic.Conn {
	now := time.Now()
	p, _ := m.View().Member(id)
	mute := h.mute(now, h.conn.ConnectionStats())
	if mute {
		m.tunnels.closeCarriers(id) // the mute link may go over one, and the next would too
	}
	var next *quic.Conn
	var err error
	switch {
	case tunnelled(h.conn) && !m.cfg.TCPOnly && !p.Outbound && now.Sub(h.tried) >= straightEvery:
		h.tried = now
		ctx, cancel := whileUp(ctx, h.conn)
		defer cancel()
		next, _, err = m.dialStraight(ctx, addr, m.linkALPN(), id)
	case mute && (m.cfg.DialTCP != nil || m.tunnels.reaches(id)):
		next, _, err = m.dial(ctx, addr, m.linkALPN(), id)
	}
	if err != nil {
		m.log.Debug("no better path", "peer", id, "err", err)
	}
	return next
}
