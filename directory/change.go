package directory

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
)

// The codes of Refusal. They are those of the protocol's errors.
const (
	CodeBadRequest  = "bad_request"
	CodeTooMany     = "too_many"
	CodeNotFound    = "not_found"
	CodeConflict    = "conflict"
	CodeNewerFormat = "newer_format"
)

// Refusal says why a change had no effect, or why a room is nowhere.
type Refusal struct{ Code, Message string }

// Error returns "code: message".
func (r *Refusal) Error() string { return r.Code + ": " + r.Message }

// Is reports whether target is a *Refusal with the same code.
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Code == r.Code
}

func refuse(code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

// App is a tenant.
type App struct {
	Name string `json:"name"`
	// Open: a room comes to be at its first use.
	Open bool `json:"open,omitzero"`
	// Homes are the regions that the app's rooms spread over.
	Homes []string `json:"homes"`
	// Rules are exceptions from Homes; the first one that matches counts.
	Rules []Rule `json:"rules,omitempty"`
	// Keys sign the app's tokens.
	Keys []Key `json:"keys,omitempty"`
}

// Rule gives homes to the rooms whose id matches.
type Rule struct {
	// Pattern is a room's whole id or, with a * at its end, how the id begins.
	Pattern string   `json:"pattern"`
	Homes   []string `json:"homes"`
}

// Key is a secret by which an app signs tokens. IDs are unique in the mesh.
type Key struct {
	ID     string `json:"id"`
	App    string `json:"-"` // whose it is; set by State.Key only
	Secret []byte `json:"secret"`
}

// Node is a member of the mesh.
type Node struct {
	ID     string `json:"id"`
	Region string `json:"region"`
	Addr   string `json:"addr"`
}

// Group holds rooms. Group 0, which holds the directory, is not listed.
type Group struct {
	ID     uint32   `json:"id"`
	Region string   `json:"region"` // the home of its rooms
	Voters []string `json:"voters"` // node ids of its first configuration
}

// Exception places one room, whatever the rules say.
type Exception struct {
	App   string `json:"app"`
	Room  string `json:"room"`
	Group uint32 `json:"group,omitzero"` // not used to delete
}

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
}

// The ops of documents, one for each field of Change.
const (
	opInit            = "init"
	opAppPut          = "app.put"
	opAppDelete       = "app.delete"
	opExceptionPut    = "exception.put"
	opExceptionDelete = "exception.delete"
	opNodePut         = "node.put"
)

// op returns what c does, "" if its fields say nothing or several things.
func (c Change) op() string {
	op, set := "", 0
	for _, f := range []struct {
		op    string
		value any
	}{
		{opInit, c.Init}, {opAppPut, c.PutApp}, {opAppDelete, c.DeleteApp}, {opExceptionPut, c.PutException},
		{opExceptionDelete, c.DeleteException}, {opNodePut, c.PutNode},
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

// documentVersion is the newest format of documents that this release writes
// and reads, of changes and of snapshots.
const documentVersion = 1

// document is the JSON form of a Change: the op and the one field it needs.
type document struct {
	V         int       `json:"v"`
	Op        string    `json:"op"`
	Init      Init      `json:"init,omitzero"`
	App       App       `json:"app,omitzero"`
	Exception Exception `json:"exception,omitzero"`
	Node      Node      `json:"node,omitzero"`
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
	d := document{V: documentVersion, Op: c.op()}
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
	}
	return d
}

// Decode decodes a document. The error is a *Refusal: newer_format for one of
// a later release, bad_request for all else that cannot be understood whole.
func Decode(b []byte) (Change, error) {
	var d document
	if r := decode(b, &d); r != nil {
		return Change{}, r
	}
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
	default:
		return Change{}, refuse(CodeBadRequest, "op %q is not known", d.Op)
	}
	if !reflect.DeepEqual(documentOf(c), d) {
		return Change{}, refuse(CodeBadRequest, "%s needs its own field and no other", d.Op)
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
