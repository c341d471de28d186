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
// Replicas are added, promoted, demoted and removed one at a time, never below a
// quorum that answers. Heartbeats of all groups to a node travel together. A
// dead leader is replaced soon after Config.Heartbeat, by whoever is next in line.
//
// A disk may forget what was acknowledged: its newest records are damaged, an
// old copy or an empty one was put in. Such a replica is found out, says so in
// Status, and neither votes nor serves before it has caught up; see DESIGN.md
// in this folder. A leader whose disk stalls gives up the lead within 3 s.
package consensus
