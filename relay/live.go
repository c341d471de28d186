package relay

import (
	"time"

	"github.com/starling-im/starling/wire"
)

// live takes what a client of this node says live in a room.
func (x *Signals) live(about Subject, user, text string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	g := x.gather(about)
	if g == nil {
		return
	}
	t := &g.crowd.talk
	was := t.bytes
	// A wall clock may step back, and a count that began earlier nobody hears.
	began := x.began.Add(time.Since(x.began)).UnixMilli()
	x.talked(t, was, t.say(user, text, time.Now(), began, x.place(t)))
	x.wake(g, 0)
}

// hearTalk takes what a node tells of what was said live, and reports whether there is no
// place for the node where that was.
func (x *Signals) hearTalk(g *gathering, node string, down bool, is *wire.Talk) (full bool) {
	t := &g.crowd.talk
	was := t.bytes
	lost, full := t.hear(node, down, is, time.Now(), x.place(t))
	x.talked(t, was, lost)
	return full
}

// place is how many bytes a talk may have.
func (x *Signals) place(t *talk) int {
	return min(talkBytes, max(0, talksBytes-x.talking+t.bytes))
}

// talked counts what a talk has now, and what was lost of it.
func (x *Signals) talked(t *talk, was, lost int) {
	x.talking += t.bytes - was
	x.stats.DroppedLive += uint64(lost)
}
