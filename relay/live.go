package relay

import (
	"time"

	"github.com/starling-im/starling/wire"
)

// live takes what a client of this node says live in a room.
func (x *Signals) live(about Subject, user, text string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	g := x.gather(about, ofLive)
	if g == nil {
		return
	}
	t := &g.crowd.talk
	was := t.bytes
	// A wall clock may step back, and a count that began earlier nobody hears.
	began := x.began.Add(time.Since(x.began)).UnixMilli()
	x.talked(g, was, t.say(user, text, time.Now(), began, x.place(g)))
	x.wake(g, 0)
}

// hearTalk takes what a node tells of what was said live, and reports whether there is no
// place for the node where that was.
func (x *Signals) hearTalk(g *gathering, node string, down bool, is *wire.Talk) (full bool) {
	t := &g.crowd.talk
	was := t.bytes
	lost, full := t.hear(node, down, is, time.Now(), x.place(g))
	x.talked(g, was, lost)
	return full
}

// place is how many bytes the talk of a room may have.
func (x *Signals) place(g *gathering) int {
	return min(talkBytes, max(0, x.talking.left(g.about.App)+g.crowd.talk.bytes))
}

// talked counts what a talk has now, and what was lost of it.
func (x *Signals) talked(g *gathering, was, lost int) {
	x.talking.add(g.about.App, -was)
	x.talking.add(g.about.App, g.crowd.talk.bytes)
	x.stats.Dropped[ofLive.drop(dropLive)] += uint64(lost)
}
