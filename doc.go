// Package starling assembles a node of the mesh from its parts, and is the
// only place that knows them all: package mesh for links and gossip, consensus
// for replicated groups, room for what they replicate, relay and edge for
// those who follow and send.
//
// It promises what docs/reference/protocol.md says to clients: that an
// acknowledged message is on the disks of a quorum, and that every follower in
// every region sees one order without a gap.
package starling
