package starling

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/wire"
)

// RuleInfo is one row of the answer to the query "apps.rules": the rules of an
// app in the order in which they are tried, then its homes, without a pattern.
type RuleInfo struct {
	App     string   `json:"app"`
	Pattern string   `json:"pattern"`
	Homes   []string `json:"homes"`
	// Survive is what the rooms outlive; Allow and Forbid are the regions whose
	// disks may, or must not, hold them.
	Survive string   `json:"survive"`
	Allow   []string `json:"allow,omitempty"`
	Forbid  []string `json:"forbid,omitempty"`
}

// AddedInfo is one group in the answer to the query "groups.add".
type AddedInfo struct {
	ID     uint32   `json:"id"`
	Region string   `json:"region"`
	Voters []string `json:"voters"`
	// As in RuleInfo.
	Survive string   `json:"survive"`
	Allow   []string `json:"allow,omitempty"`
	Forbid  []string `json:"forbid,omitempty"`
	// UnderReplicated says why what it is to survive cannot be had now.
	UnderReplicated string `json:"under_replicated,omitempty"`
}

// What operators may ask a node to do. The first argument of those that change
// something is an id that the asker makes up: asked again with it, the change
// happens once.
const (
	queryRules      = "apps.rules"        // APP
	queryRulePut    = "apps.rules.put"    // ID APP PATTERN HOME,HOME… [first] [CLASS…]
	queryRuleDelete = "apps.rules.delete" // ID APP PATTERN
	queryGroupsAdd  = "groups.add"        // ID REGION COUNT [CLASS…]
	querySettle     = "placement.settle"
	// CLASS is survive=VALUE, allow=REGION,REGION… or forbid=REGION,REGION….

	// queryDisplacedHere is for other nodes: GROUP PLACEMENT APP ROOM.
	queryDisplacedHere = "placement.displaced.here"
)

// operations has the number of arguments of each.
var operations = map[string]arity{
	queryRules: {1, 1}, queryRulePut: {4, 8}, queryRuleDelete: {3, 3}, queryGroupsAdd: {3, 6}, querySettle: {0, 0},
}

// arity is how many arguments a query of an operator takes.
type arity struct{ least, most int }

// check returns why a query of a peer is refused before anybody looks at what it asks.
func (a arity) check(p relay.Peer, q *wire.Query) error {
	switch n := len(q.Args); {
	case !p.Operator:
		return wire.Errorf(wire.CodeForbidden, "%q needs a token of an operator", q.What)
	case n < a.least || n > a.most:
		return wire.Errorf(wire.CodeBadRequest, "%q takes %d to %d arguments, not %d", q.What, a.least, a.most, n)
	}
	return nil
}

// operate does what an operator asks for; ok is false if it is nothing of this.
func (n *Node) operate(ctx context.Context, p relay.Peer, q *wire.Query) (answer []byte, ok bool, err error) {
	if q.What == queryDisplacedHere && p.Node != "" {
		answer, err = n.displacedHere(ctx, q.Args)
		return answer, true, err
	}
	bounds, ok := operations[q.What]
	if !ok || p.Node != "" {
		return nil, false, nil
	}
	if err := bounds.check(p, q); err != nil {
		return nil, true, err
	}
	a := q.Args
	var result any
	switch q.What {
	case queryRules:
		result, err = n.rules(a[0])
	case queryRulePut:
		rule := directory.AppRule{App: a[1], Rule: directory.Rule{Pattern: a[2], Homes: strings.Split(a[3], ",")}}
		more := a[4:]
		if rule.First = len(more) > 0 && more[0] == "first"; rule.First {
			more = more[1:]
		}
		if err = rule.Check(); err != nil {
			return nil, true, refusedChange(err)
		}
		if rule.Rule.Class, err = n.class(more); err != nil {
			return nil, true, err
		}
		result, err = n.changeRules(ctx, a[0], p.User, rule.App, directory.Change{PutRule: rule})
	case queryRuleDelete:
		rule := directory.AppRule{App: a[1], Rule: directory.Rule{Pattern: a[2]}}
		result, err = n.changeRules(ctx, a[0], p.User, rule.App, directory.Change{DeleteRule: rule})
	case querySettle:
		result, err = n.settler.settle(ctx, p.User)
	case queryGroupsAdd:
		result, err = n.addGroups(ctx, a[0], p.User, a[1], a[2], a[3:])
	}
	if err != nil {
		return nil, true, err
	}
	answer, err = json.Marshal(result)
	return answer, true, err
}

func (n *Node) rules(app string) ([]RuleInfo, error) {
	a, ok := n.dir.state().App(app)
	if !ok {
		return nil, wire.Errorf(wire.CodeNotFound, "there is no app %q", app)
	}
	var rules []RuleInfo
	for _, r := range a.Rules {
		rules = append(rules, RuleInfo{app, r.Pattern, r.Homes, cmp.Or(r.Survive, n.cfg.Survive), r.Allow, r.Forbid})
	}
	return append(rules, RuleInfo{App: app, Homes: a.Homes, Survive: n.cfg.Survive}), nil
}

func (n *Node) changeRules(ctx context.Context, id, user, app string, c directory.Change) ([]RuleInfo, error) {
	if err := n.dir.change(ctx, id, user, c); err != nil {
		return nil, err
	}
	return n.rules(app)
}

// maxGroupsAdded bounds what one change adds: its document fits into a message.
const maxGroupsAdded = 64

// addGroups adds groups to a region. Where their first replicas are is decided
// here, by who is there now.
func (n *Node) addGroups(ctx context.Context, id, user, region, count string, classes []string) ([]AddedInfo, error) {
	class, err := n.class(classes)
	if err != nil {
		return nil, err
	}
	if slices.Contains(class.Forbid, region) || len(class.Allow) > 0 && !slices.Contains(class.Allow, region) {
		return nil, wire.Errorf(wire.CodeBadRequest, "groups at home in %q cannot be kept off its disks", region)
	}
	many, err := strconv.Atoi(count)
	if err != nil || many < 1 || many > maxGroupsAdded {
		return nil, wire.Errorf(wire.CodeBadRequest, "%q groups cannot be added, but 1 to %d", count, maxGroupsAdded)
	}
	n.awaitRegion(ctx, region)
	next := uint32(1)
	load := map[string]int{}
	for _, g := range n.dir.state().Groups() {
		next = max(next, g.ID+1)
		for _, v := range slices.Concat(g.Replicas().Voters, g.Replicas().Learners) {
			load[v]++
		}
	}
	var groups []directory.Group
	var added []AddedInfo
	for i := range uint32(many) {
		g := directory.Group{ID: next + i, Region: region, Class: class}
		place := geo.Place(n.policy(g), n.nodeStates(load), geo.Config{}, distances{n})
		g.Voters = place.Voters
		if len(g.Voters) == 0 || !slices.Contains(n.regionNodes(region), g.Voters[0]) {
			return nil, wire.Errorf(wire.CodeNotFound, "no node of region %q is alive", region)
		}
		for _, v := range g.Voters {
			load[v]++
		}
		groups = append(groups, g)
		is := n.added(g)
		is.UnderReplicated = place.UnderReplicated
		added = append(added, is)
	}
	err = n.dir.change(ctx, id, user, directory.Change{AddGroups: groups})
	if err == errRepeated { // the first answer was lost, and by now others come next
		return n.newestGroups(region), nil
	}
	return added, err
}

// joinedWithin is how long a node that has just joined may take to be known here.
const joinedWithin = 3 * time.Second

// awaitRegion waits, not for long, until a node of a region can be reached.
func (n *Node) awaitRegion(ctx context.Context, region string) {
	ctx, cancel := context.WithTimeout(ctx, joinedWithin)
	defer cancel()
	for ctx.Err() == nil {
		view, fold := n.mesh.View(), n.dir.changes.next()
		if slices.ContainsFunc(n.regionNodes(region), n.reachable) {
			return
		}
		select {
		case <-view.Next():
		case <-fold:
		case <-ctx.Done():
		}
	}
}

func (n *Node) added(g directory.Group) AddedInfo {
	return AddedInfo{ID: g.ID, Region: g.Region, Voters: g.Voters, Survive: cmp.Or(g.Survive, n.cfg.Survive), Allow: g.Allow, Forbid: g.Forbid}
}

// class reads CLASS arguments. What the mesh does anyway is not said, so that each
// policy has one class.
func (n *Node) class(args []string) (c directory.Class, err error) {
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		regions := slices.Compact(slices.Sorted(slices.Values(strings.Split(value, ","))))
		switch {
		case value == "":
			return c, wire.Errorf(wire.CodeBadRequest, "%q says nothing", a)
		case name == "survive" && !slices.Contains([]geo.Survive{geo.SurviveNode, geo.SurviveRegion, geo.SurviveNone}, geo.Survive(value)):
			return c, wire.Errorf(wire.CodeBadRequest, "rooms cannot survive %q, but node, region or none", value)
		case name == "survive":
			c.Survive = value
		case (name == "allow" || name == "forbid") && n.strange(regions) != "":
			return c, wire.Errorf(wire.CodeBadRequest, "no node is of region %q, which %s names", n.strange(regions), a)
		case name == "allow":
			c.Allow = regions
		case name == "forbid":
			c.Forbid = regions
		default:
			return c, wire.Errorf(wire.CodeBadRequest, "%q is none of survive=, allow= and forbid=", a)
		}
	}
	if c.Survive == n.cfg.Survive {
		c.Survive = ""
	}
	return c, nil
}

// strange returns one of the regions of which there is no node, "" if there is none.
func (n *Node) strange(regions []string) string {
	for _, r := range regions {
		if !slices.ContainsFunc(n.sites(), func(s geo.Site) bool { return s.Region == r }) {
			return r
		}
	}
	return ""
}

// newestGroups are the groups that were added to a region last.
func (n *Node) newestGroups(region string) (added []AddedInfo) {
	since := uint64(1)
	for _, g := range n.dir.state().Groups() {
		if g.Region != region || g.Since < since {
			continue
		}
		if g.Since > since {
			since, added = g.Since, nil
		}
		added = append(added, n.added(g))
	}
	return added
}

// nodeStates are the members of the mesh that are alive, as package geo sees them.
func (n *Node) nodeStates(load map[string]int) []geo.NodeState {
	var nodes []geo.NodeState
	for _, m := range n.mesh.View().Members {
		if m.ID == n.cfg.Node || m.Linked && m.State != mesh.Draining {
			nodes = append(nodes, geo.NodeState{Site: geo.Site{Node: m.ID, Region: m.Region}, State: geo.Alive, Load: load[m.ID]})
		}
	}
	return nodes
}

func (n *Node) regionNodes(region string) (nodes []string) {
	for _, m := range n.mesh.View().Members {
		if m.Region == region {
			nodes = append(nodes, m.ID)
		}
	}
	return nodes
}
