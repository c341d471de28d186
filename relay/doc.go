// Package relay delivers the events of rooms to everyone who follows them.
//
// Its one request is "the events of this room after this position". A Hub
// holds a topic for each room that somebody follows: a bounded tail of encoded
// events that all followers share by reference. A Session answers one peer, a
// client or another node: its follows are cursors into topics, and it has no
// backlog of its own. A cursor that falls off the tail reads history from
// where it is; so a slow reader costs itself time and nobody else anything.
//
// The package promises that a follower is given every seq after its cursor,
// in order and once, or an error; and that what waits for one session in
// memory never exceeds its named bound.
package relay
