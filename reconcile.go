package starling

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/starling-im/starling/consensus"
	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/wire"
)

const (
	// reconcileEvery is how often the groups that a node leads are looked at.
	reconcileEvery = time.Second
	// stepWithin bounds one change of a configuration.
	stepWithin = 5 * time.Second
	// filling bounds the replicas that this node fills at once: each is a copy
	// of a group's rooms.
	filling = 2
	// caughtUp is how many entries a replica may lack to be as good as complete.
	caughtUp = 64
	// leadSteady is how long a node must have been alive before it is given the
	// lead of a group, and leadAgain the pause between two such gifts.
	leadSteady = 3 * time.Second
	leadAgain  = 30 * time.Second
)

// reconciler moves the groups that this node leads toward where package geo
// wants their replicas. Nobody coordinates: a group's leader alone can change
// it, takes one step after the other, and a step that was thought of in an
// older configuration is refused.
type reconciler struct {
	node  *Node
	fleet fleet

	mu     sync.Mutex
	plans  map[uint32]GroupPlan // of the groups led here, of the last look
	orders map[uint32]order     // replacements that an operator asked for
	led    map[uint32]time.Time // when the lead of a group was last given away
}

// GroupPlan is what becomes of a group, in the answer to the query
// "groups.explain".
type GroupPlan struct {
	Group   uint32 `json:"group"`
	Region  string `json:"region"`
	Survive string `json:"survive"`
	// Allow and Forbid are the regions whose disks may, or must not, hold it.
	Allow  []string `json:"allow,omitempty"`
	Forbid []string `json:"forbid,omitempty"`
	// Losses say what is lost or stands still if what is lost, as it is now.
	Losses []string `json:"losses"`
	Leader string   `json:"leader"`
	// Term is that of the leader: one that leads again is as good as another one.
	Term uint64 `json:"term,omitempty"`
	// Voters and Learners are those of now, WantVoters and WantLearners those
	// that there should be: without a leader nobody says that.
	Voters       []string `json:"voters"`
	Learners     []string `json:"learners,omitempty"`
	WantVoters   []string `json:"want_voters"`
	WantLearners []string `json:"want_learners,omitempty"`
	// UnderReplicated says why the policy cannot be met.
	UnderReplicated string `json:"under_replicated,omitempty"`
	// Next is the next step, such as "promote fra-2"; Why says why that, or why
	// nothing.
	Next string `json:"next,omitempty"`
	Why  string `json:"why"`
	// Paused: the step is not taken.
	Paused bool `json:"paused,omitempty"`
	// Failed says why the step could not be taken when it was last tried.
	Failed string `json:"failed,omitempty"`
	// Replace is what an operator ordered and is not done yet: the voter that is to
	// go, and the node that is to take its place.
	Replace []string `json:"replace,omitempty"`

	step   geo.Step
	seen   uint64   // the configuration that the step is thought of in
	silent []string // replicas that do not answer
}

func newReconciler(n *Node) *reconciler {
	return &reconciler{
		node: n, fleet: fleet{node: n, seen: map[string]sight{}},
		plans: map[uint32]GroupPlan{}, orders: map[uint32]order{}, led: map[uint32]time.Time{},
	}
}

// run looks after the groups until ctx ends.
func (r *reconciler) run(ctx context.Context) {
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// look takes at most one step in each group that this node leads.
func (r *reconciler) look(ctx context.Context) {
	nodes := r.fleet.nodes()
	plans := map[uint32]GroupPlan{}
	open := filling
	for _, s := range r.node.host.Status() {
		_, known := r.node.group(s.ID)
		switch {
		case !known:
		case s.State == "leader":
			p := r.plan(s, nodes)
			open -= behind(s)
			if p.step.Do == geo.AddLearner && open <= 0 {
				p.step, p.Next, p.Why = geo.Step{}, "", "other replicas are being filled first"
			}
			if p.step.Do != "" && !p.Paused {
				p.Failed = r.take(ctx, s, p)
				open--
			}
			plans[s.ID] = p
		case s.Removed && r.node.unlisted(s.ID):
			r.drop(s.ID)
		}
	}
	r.tell(ctx, plans)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plans = plans
	for id := range r.orders {
		if r.node.host.Leader(id) != r.node.cfg.Node {
			delete(r.orders, id) // it would be obeyed long after its time
		}
	}
}

// behind counts the learners that are being filled.
func behind(s consensus.Status) (n int) {
	for _, x := range s.Replicas {
		if !x.Voter && x.Match+caughtUp < s.LastIndex {
			n++
		}
	}
	return n
}

// plan says what should become of a group that this node leads.
func (r *reconciler) plan(s consensus.Status, nodes []geo.NodeState) GroupPlan {
	n := r.node
	g, _ := n.group(s.ID)
	now := geo.Config{Leader: s.Leader}
	var silent []string
	for _, x := range s.Replicas {
		if x.Voter {
			now.Voters = append(now.Voters, x.Node)
		} else {
			now.Learners = append(now.Learners, x.Node)
		}
		// One that drains is as if it were behind: it gets neither a vote nor the lead.
		if x.Match+caughtUp >= s.LastIndex && !x.Doubtful && !n.draining(x.Node) {
			now.CaughtUp = append(now.CaughtUp, x.Node)
		}
		if !n.reachable(x.Node) || !x.Heard.IsZero() && time.Since(x.Heard) > silentAfter {
			silent = append(silent, x.Node)
		}
	}
	for _, x := range nodes {
		if x.State.Answers() {
			now.Alive = append(now.Alive, x.Node)
		}
	}
	gone := slices.DeleteFunc(slices.Concat(now.Voters, now.Learners), func(v string) bool { return slices.Contains(now.Alive, v) })
	policy := n.policy(g)
	want, ordered := r.obey(s.ID, now, n.wanted(g, nodes, now))
	step, why := geo.NextStep(now, want)
	if step.Do == geo.Lead && slices.Contains(want.Voters, s.Leader) && !r.mayLead(s.ID, step.Node) {
		step, why = geo.Step{}, fmt.Sprintf("%s is to lead, once it has been there for a while", step.Node)
	}
	p := GroupPlan{
		Group: s.ID, Region: g.Region, Survive: string(policy.Survive), Allow: g.Allow, Forbid: g.Forbid,
		Losses: geo.Losses(now.Voters, now.Learners, gone, n.sites()), Leader: s.Leader, Term: s.Term, Voters: now.Voters, Learners: now.Learners,
		WantVoters: want.Voters, WantLearners: want.Learners, UnderReplicated: want.UnderReplicated,
		Why: why, Paused: n.dir.state().Paused(), Replace: ordered, step: step, seen: s.ConfigIndex, silent: silent,
	}
	if step.Do != "" {
		p.Next = fmt.Sprintf("%s %s", step.Do, step.Node)
	}
	return p
}

// wanted is where package geo and the directory want a group to be.
func (n *Node) wanted(g directory.Group, nodes []geo.NodeState, now geo.Config) geo.Placement {
	want := geo.Place(n.policy(g), nodes, now, distances{n})
	want.Voters = preferred(g, nodes, want.Voters)
	if g.ID == 0 {
		want.Learners = geo.Copies(want, nodes, now)
	}
	return want
}

// preferred puts the directory's choice of a leader first, if geo could have
// chosen it too: a voter alive in the region where the leader is to be.
func preferred(g directory.Group, nodes []geo.NodeState, voters []string) []string {
	regions := map[string]string{}
	for _, x := range nodes {
		if x.State == geo.Alive {
			regions[x.Node] = x.Region
		}
	}
	first := g.Replicas().Voters[0]
	if len(voters) == 0 || regions[first] == "" || regions[first] != regions[voters[0]] || !slices.Contains(voters, first) {
		return voters
	}
	return append([]string{first}, slices.DeleteFunc(slices.Clone(voters), func(v string) bool { return v == first })...)
}

// mayLead keeps leadership from wandering.
func (r *reconciler) mayLead(group uint32, node string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.led[group]) < leadAgain {
		return false
	}
	return r.fleet.aliveFor(node) >= leadSteady
}

// take takes a step and waits until it has taken effect. It returns why it has
// not, "" if it has.
func (r *reconciler) take(ctx context.Context, s consensus.Status, p GroupPlan) (failed string) {
	ctx, cancel := context.WithTimeout(ctx, stepWithin)
	defer cancel()
	host, node := r.node.host, p.step.Node
	var err error
	switch p.step.Do {
	case geo.AddLearner:
		err = host.AddLearner(ctx, s.ID, node, s.ConfigIndex)
	case geo.Promote:
		err = host.Promote(ctx, s.ID, node, s.ConfigIndex)
	case geo.Demote:
		err = host.Demote(ctx, s.ID, node, s.ConfigIndex)
	case geo.Remove:
		err = host.Remove(ctx, s.ID, node, s.ConfigIndex)
	case geo.Lead:
		if _, err = host.Transfer(ctx, s.ID, node); err == nil {
			r.mu.Lock()
			r.led[s.ID] = time.Now()
			r.mu.Unlock()
			r.passOn(ctx, s.ID, node)
		}
	}
	if err != nil {
		r.node.log.Warn("a group could not be changed", "group", s.ID, "step", p.Next, "err", err)
		return wire.AsError(err).Message
	}
	r.node.log.Info("a group changes", "group", s.ID, "step", p.Next, "why", p.Why)
	return ""
}

// tell brings the replicas of the groups that this node leads into the
// directory, for those who look for them. It is tried again at the next look.
func (r *reconciler) tell(ctx context.Context, plans map[uint32]GroupPlan) {
	ctx, cancel := context.WithTimeout(ctx, reconcileEvery)
	defer cancel()
	for id, p := range plans {
		g, ok := r.node.group(id)
		was := g.Replicas()
		if !ok || len(p.Voters) == 0 || sameNodes(was.Voters, p.Voters) && sameNodes(was.Learners, p.Learners) {
			continue
		}
		now := directory.Replicas{Voters: ordered(p.Voters, was.Voters), Learners: p.Learners}
		err := r.node.dir.change(ctx, fmt.Sprintf("replicas/%d/%d/%d", id, p.seen, r.node.dir.state().Version()), directory.SystemApp,
			directory.Change{PutGroup: directory.GroupReplicas{ID: id, Replicas: now}})
		if err != nil {
			r.node.log.Debug("the directory could not be told of a group's replicas", "group", id, "err", err)
			return
		}
	}
}

func sameNodes(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// ordered returns nodes with those first that are in the order given.
func ordered(nodes, order []string) []string {
	rank := func(v string) int {
		if i := slices.Index(order, v); i >= 0 {
			return i
		}
		return len(order)
	}
	nodes = slices.Clone(nodes)
	slices.SortStableFunc(nodes, func(a, b string) int { return rank(a) - rank(b) })
	return nodes
}

// drop gives up a replica that the group goes on without.
func (r *reconciler) drop(group uint32) {
	if err := r.node.host.Drop(group); err != nil {
		r.node.log.Warn("a replica that is not needed any more could not be dropped", "group", group, "err", err)
		return
	}
	r.node.log.Info("a replica that is not needed any more is dropped", "group", group)
}

// join says that this node takes a replica of a group that it is told of.
func (n *Node) join(group uint32) (consensus.Group, bool) {
	_, ok := n.dir.state().Group(group)
	return consensus.Group{ID: group, Heartbeat: n.heartbeat(group)}, ok || group == 0
}

// explain says what becomes of a group that this node leads, as of now.
func (r *reconciler) explain(group uint32) (GroupPlan, error) {
	for _, s := range r.node.host.Status() {
		if s.ID != group || s.State != "leader" {
			continue
		}
		p := r.plan(s, r.fleet.nodes())
		r.mu.Lock()
		defer r.mu.Unlock()
		if last := r.plans[group]; last.Next == p.Next {
			p.Failed = last.Failed
		}
		return p, nil
	}
	return GroupPlan{}, r.notLeader(group)
}

// notLeader says who leads a group, as far as this node knows.
func (r *reconciler) notLeader(group uint32) error {
	e := wire.Errorf(wire.CodeNotLeader, "this node does not lead group %d", group).After(leaderAgain)
	e.Node = r.node.host.Leader(group)
	return e
}
