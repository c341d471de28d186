// Package client is the Go SDK of Starling: it sends messages to rooms and
// follows them, over QUIC, or over WebSocket where UDP is blocked.
//
// A [Client] keeps one session with one of several nodes alive and promises:
//
//   - A send ends in one of three ways: acknowledged, which means that it is
//     on the disks of a quorum; *[Rejected], which means that it never takes
//     effect; or *[Unknown], which leaves the decision to the caller, who may
//     send again with the same ID without fear of a double.
//   - Sends of one client to one room take effect in the order they were made.
//   - A [Follow] yields every event of its room after its start once, in
//     order, across lost connections and nodes; or an error that says why not.
//   - Whoever stops reading a Follow costs nobody else anything.
//
// A [Session] is the layer below: one connection, without reconnecting.
package client
