package relay

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// roomRate bounds the sends to one room. While there is enough for all, it does not matter
// who sends; when more than half of the burst is spent, those who send in a second have
// equal parts of what a second gives, so that many sessions of one user leave some to others.
type roomRate struct {
	all *rate.Limiter
	// Since second began: how many sends of each user were let in; before is the number of
	// users in the second before. nil: there was enough for all.
	second time.Time
	sent   map[string]int
	before int
}

func (r *roomRate) admit(id room.ID, user string, now time.Time) error {
	scarce := r.all.TokensAt(now) < float64(r.all.Burst())/2
	if scarce {
		if wait := r.over(user, now); wait > 0 {
			return wire.Errorf(wire.CodeRateLimited, "more than your share of %v sends per second to %q", r.all.Limit(), id.Room).After(wait)
		}
	}
	if wait := spend(r.all, now); wait > 0 {
		return wire.Errorf(wire.CodeRateLimited, "more than %v sends per second to %q", r.all.Limit(), id.Room).After(wait)
	}
	if scarce {
		r.sent[user]++
	} else {
		r.sent, r.before = nil, 0
	}
	return nil
}

// over returns how long a user who has had his part of this second is to wait, else 0.
func (r *roomRate) over(user string, now time.Time) time.Duration {
	if age := now.Sub(r.second); r.sent == nil || age >= time.Second {
		r.before = len(r.sent)
		r.second, r.sent = now, map[string]int{}
	}
	users := len(r.sent)
	if r.sent[user] == 0 {
		users++
	}
	if r.sent[user] < max(1, int(r.all.Limit())/max(users, r.before)) {
		return 0
	}
	return max(time.Millisecond, r.second.Add(time.Second).Sub(now))
}
