package relay

// apps is what those of a node hold of something that is for all of them. While more than
// half of it is held, an app may hold its share alone: three quarters of it in equal parts for
// those that hold some. The last quarter is for apps that come then.
type apps struct {
	max, held int
	by        map[string]int // by app; without zeros
}

func newApps(max int) apps { return apps{max: max, by: map[string]int{}} }

// full: nobody gets any more.
func (a *apps) full() bool { return a.held >= a.max }

// over: the app gets no more.
func (a *apps) over(app string) bool { return a.by[app] >= a.share(app) }

// share is how much an app may hold now.
func (a *apps) share(app string) int {
	if a.held <= a.max/2 {
		return a.max
	}
	n := len(a.by)
	if a.by[app] == 0 {
		n++
	}
	return max(1, (a.max-a.max/4)/n)
}

// left is how much more the app gets; less than zero if its share has become smaller.
func (a *apps) left(app string) int { return min(a.max-a.held, a.share(app)-a.by[app]) }

func (a *apps) take(app string)    { a.add(app, 1) }
func (a *apps) release(app string) { a.add(app, -1) }

// add changes what the app holds by n.
func (a *apps) add(app string, n int) {
	a.held += n
	if a.by[app] += n; a.by[app] == 0 {
		delete(a.by, app)
	}
}
