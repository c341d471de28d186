// Package consensus runs many small Raft groups over one store.
//
// A Host is one node's share: it keeps the logs, votes and data of all its
// groups in one Pebble database (one write-ahead log, so that groups share
// their fsyncs) and speaks with each other node over one ordered stream.
//
// It promises: a command is answered only after a quorum has synced it; every
// replica applies the same entries in the same order, none twice; commands
// take effect in the order in which they were proposed or not at all; an error
// of the storage ends the Host, which then accepts, answers and sends nothing
// more; a folder written by a newer release is refused. All queues have named
// bounds, and a Host that is closed leaves no goroutine behind.
//
// Not there yet: a leader with a stalled disk does not give up leadership, and
// a disk that lost its newest records or was replaced by an old copy is not
// recognised. Both need more than Raft knows; see DESIGN.md in this folder.
package consensus
