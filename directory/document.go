package directory

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"
)

// Init is the first directory of a mesh.
type Init struct {
	Apps       []App       `json:"apps,omitempty"`
	Nodes      []Node      `json:"nodes,omitempty"`
	Groups     []Group     `json:"groups,omitempty"`
	Exceptions []Exception `json:"exceptions,omitempty"`
}

// Change is one entry of the directory's log. Exactly one field is set.
type Change struct {
	Init            Init      // ignored if the directory is not empty
	PutApp          App       // replaces the app of that name
	DeleteApp       string    // by name; exceptions of its rooms stay
	PutException    Exception // replaces that of the same room
	DeleteException Exception // by app and room
	PutNode         Node      // replaces the node of that id
	DeleteNode      string    // by id; not one that holds a group
	PutRule         AppRule   // replaces the app's rule of that pattern, in its place
	DeleteRule      AppRule   // by app and pattern
	AddGroups       []Group   // with new ids
	// PutGroup says who holds a group now, since format 3 also group 0. Where rooms
	// live stays the same.
	PutGroup GroupReplicas
	// Settle forgets where rooms lived before this placement: all groups know
	// of each room that is not where it belongs.
	Settle uint64
	// Reconcile says whether replicas are moved to where policies want them:
	// Pause or Resume.
	Reconcile string

	// Since format 4.
	PutToken    Token
	DeleteToken string // by id
	Join        Join
	RevokeNode  string // by id; it stays a node until it is deleted
	PutGossip   GossipKeys
	LeaveNode   string // by id
	StayNode    string // takes LeaveNode back
}

// The values of Change.Reconcile.
const (
	Pause  = "pause"
	Resume = "resume"
)

// The ops of documents, one for each field of Change.
const (
	opInit            = "init"
	opAppPut          = "app.put"
	opAppDelete       = "app.delete"
	opExceptionPut    = "exception.put"
	opExceptionDelete = "exception.delete"
	opNodePut         = "node.put"

	// Since format 2.
	opNodeDelete = "node.delete"
	opRulePut    = "rule.put"
	opRuleDelete = "rule.delete"
	opGroupsAdd  = "groups.add"
	opGroupPut   = "group.put"
	opSettle     = "settle"
	opReconcile  = "reconcile"

	// Since format 4.
	opTokenPut    = "token.put"
	opTokenDelete = "token.delete"
	opJoin        = "join"
	opNodeRevoke  = "node.revoke"
	opGossipPut   = "gossip.put"
	opNodeLeave   = "node.leave"
	opNodeStay    = "node.stay"
)

// op returns what c does, "" if its fields say nothing or several things.
func (c Change) op() string {
	op, set := "", 0
	for _, f := range []struct {
		op    string
		value any
	}{
		{opInit, c.Init}, {opAppPut, c.PutApp}, {opAppDelete, c.DeleteApp}, {opExceptionPut, c.PutException},
		{opExceptionDelete, c.DeleteException}, {opNodePut, c.PutNode}, {opNodeDelete, c.DeleteNode},
		{opRulePut, c.PutRule}, {opRuleDelete, c.DeleteRule}, {opGroupsAdd, c.AddGroups}, {opGroupPut, c.PutGroup},
		{opSettle, c.Settle}, {opReconcile, c.Reconcile},
		{opTokenPut, c.PutToken}, {opTokenDelete, c.DeleteToken}, {opJoin, c.Join}, {opNodeRevoke, c.RevokeNode}, {opGossipPut, c.PutGossip},
		{opNodeLeave, c.LeaveNode}, {opNodeStay, c.StayNode},
	} {
		if !reflect.ValueOf(f.value).IsZero() {
			op = f.op
			set++
		}
	}
	if set != 1 {
		return ""
	}
	return op
}

// documentVersion is the newest format of documents that this release reads, of
// changes and of snapshots. It writes the oldest that can say what there is to
// say, so that the release before reads it too.
const documentVersion = 4

// document is the JSON form of a Change: the op and the one field it needs.
type document struct {
	V         int       `json:"v"`
	Op        string    `json:"op"`
	Init      Init      `json:"init,omitzero"`
	App       App       `json:"app,omitzero"`
	Exception Exception `json:"exception,omitzero"`
	Node      Node      `json:"node,omitzero"`

	Rule      AppRule       `json:"rule,omitzero"`
	Groups    []Group       `json:"groups,omitempty"`
	Group     GroupReplicas `json:"group,omitzero"`
	Placement uint64        `json:"placement,omitzero"`
	Reconcile string        `json:"reconcile,omitzero"`

	Token  Token      `json:"token,omitzero"`
	Join   Join       `json:"join,omitzero"`
	Gossip GossipKeys `json:"gossip,omitzero"`
}

// Encode returns the document of a change. That of a change which is not
// exactly one thing is refused by Decode.
func Encode(c Change) []byte {
	b, err := json.Marshal(documentOf(c))
	if err != nil {
		panic("directory: " + err.Error()) // no type here can fail
	}
	return b
}

func documentOf(c Change) document {
	d := document{V: 1, Op: c.op()}
	switch d.Op {
	case opInit:
		d.Init = c.Init
	case opAppPut:
		d.App = c.PutApp
	case opAppDelete:
		d.App = App{Name: c.DeleteApp}
	case opExceptionPut:
		d.Exception = c.PutException
	case opExceptionDelete:
		d.Exception = c.DeleteException
	case opNodePut:
		d.Node = c.PutNode
	case opTokenPut, opTokenDelete, opJoin, opNodeRevoke, opNodeLeave, opNodeStay, opGossipPut:
		d.V = 4
		d.Token, d.Join, d.Gossip = c.PutToken, c.Join, c.PutGossip
		d.Node = Node{ID: c.RevokeNode + c.LeaveNode + c.StayNode} // of which one is set
		if d.Op == opTokenDelete {
			d.Token = Token{ID: c.DeleteToken}
		}
	default:
		d.V = 2
		d.Node = Node{ID: c.DeleteNode}
		d.Rule = c.PutRule
		if d.Op == opRuleDelete {
			d.Rule = c.DeleteRule
		}
		d.Groups, d.Group, d.Placement, d.Reconcile = c.AddGroups, c.PutGroup, c.Settle, c.Reconcile
	}
	if classed(slices.Concat(c.Init.Groups, c.AddGroups), append(rulesOf(append(c.Init.Apps, c.PutApp)), []Rule{c.PutRule.Rule, c.DeleteRule.Rule})...) ||
		d.Op == opGroupPut && c.PutGroup.ID == 0 {
		d.V = 3
	}
	if slices.ContainsFunc(append(c.Init.Nodes, c.PutNode), Node.admitted) {
		d.V = 4
	}
	return d
}

// brief leaves out lists that are there and empty, as Encode does.
func (d document) brief() (short document) {
	b, err := json.Marshal(d)
	if err == nil {
		err = json.Unmarshal(b, &short)
	}
	if err != nil {
		panic(err) // strings and numbers, which have just been decoded
	}
	return short
}

// Decode decodes a document. The error is a *Refusal: newer_format for one of
// a later release, bad_request for all else that cannot be understood whole.
func Decode(b []byte) (Change, error) {
	var d document
	if r := decode(b, &d); r != nil {
		return Change{}, r
	}
	d = d.brief()
	var c Change
	switch d.Op {
	case opInit:
		c.Init = d.Init
	case opAppPut:
		c.PutApp = d.App
	case opAppDelete:
		c.DeleteApp = d.App.Name
	case opExceptionPut:
		c.PutException = d.Exception
	case opExceptionDelete:
		c.DeleteException = d.Exception
	case opNodePut:
		c.PutNode = d.Node
	case opNodeDelete:
		c.DeleteNode = d.Node.ID
	case opRulePut:
		c.PutRule = d.Rule
	case opRuleDelete:
		c.DeleteRule = d.Rule
	case opGroupsAdd:
		if len(d.Groups) == 0 {
			return Change{}, refuse(CodeBadRequest, "%s adds no groups", d.Op)
		}
		c.AddGroups = d.Groups
	case opGroupPut:
		c.PutGroup = d.Group
	case opSettle:
		c.Settle = d.Placement
	case opReconcile:
		c.Reconcile = d.Reconcile
	case opTokenPut:
		c.PutToken = d.Token
	case opTokenDelete:
		c.DeleteToken = d.Token.ID
	case opJoin:
		c.Join = d.Join
	case opNodeRevoke:
		c.RevokeNode = d.Node.ID
	case opGossipPut:
		c.PutGossip = d.Gossip
	case opNodeLeave:
		c.LeaveNode = d.Node.ID
	case opNodeStay:
		c.StayNode = d.Node.ID
	default:
		return Change{}, refuse(CodeBadRequest, "op %q is not known", d.Op)
	}
	// Also what an older format cannot say: releases that know only that one
	// refuse it, and all must do the same.
	if !reflect.DeepEqual(documentOf(c), d) {
		return Change{}, refuse(CodeBadRequest, "%s of format %d needs its own field and no other", d.Op, d.V)
	}
	return c, nil
}

// decode decodes a versioned document, refusing what it does not know: a field
// that one release skips and another obeys would set two nodes apart.
func decode(b []byte, to any) *Refusal {
	var head struct{ V int }
	if err := json.Unmarshal(b, &head); err != nil {
		return refuse(CodeBadRequest, "no JSON document: %v", err)
	}
	switch {
	case head.V > documentVersion:
		return refuse(CodeNewerFormat, "document has format %d, this release knows %d", head.V, documentVersion)
	case head.V < 1:
		return refuse(CodeBadRequest, "document has no version")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return refuse(CodeBadRequest, "document: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return refuse(CodeBadRequest, "document has more after its end")
	}
	return nil
}
