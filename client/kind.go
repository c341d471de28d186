package client

import (
	"fmt"

	"github.com/starling-im/starling/wire"
)

// Kind says what an event does to its room.
type Kind uint8

// The kinds of events. A Create comes of Client.Create alone.
const (
	KindMessage Kind = Kind(wire.Kind_KIND_MESSAGE)
	KindAction  Kind = Kind(wire.Kind_KIND_ACTION)
	KindJoin    Kind = Kind(wire.Kind_KIND_JOIN)
	KindLeave   Kind = Kind(wire.Kind_KIND_LEAVE)
	KindCreate  Kind = Kind(wire.Kind_KIND_CREATE)
)

var kindNames = []string{KindMessage: "message", KindAction: "action", KindJoin: "join", KindLeave: "leave", KindCreate: "create"}

// String returns "message", "action", "join", "leave" or "create".
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// ParseKind returns the kind with that name.
func ParseKind(name string) (Kind, error) {
	for k, n := range kindNames {
		if n == name && n != "" {
			return Kind(k), nil
		}
	}
	return 0, fmt.Errorf("client: there is no kind %q", name)
}

// Access says who may send to a room.
type Access uint8

// The policies of a room.
const (
	// AccessOpen lets anyone of the app send.
	AccessOpen Access = Access(wire.Access_ACCESS_OPEN)
	// AccessMembers lets those send who have joined; anyone may join.
	AccessMembers Access = Access(wire.Access_ACCESS_MEMBERS)
)

// String returns "open" or "members".
func (a Access) String() string {
	switch a {
	case AccessOpen:
		return "open"
	case AccessMembers:
		return "members"
	}
	return fmt.Sprintf("access(%d)", uint8(a))
}

// ParseAccess returns the access with that name.
func ParseAccess(name string) (Access, error) {
	for _, a := range []Access{AccessOpen, AccessMembers} {
		if a.String() == name {
			return a, nil
		}
	}
	return 0, fmt.Errorf("client: there is no access %q", name)
}
