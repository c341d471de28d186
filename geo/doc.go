// Package geo knows where things are and where they should be: the round-trip
// times between places, which nodes should hold a room, and from which node
// another should get a room's events.
//
// Everything in it is pure: the same arguments give the same answer on every
// node, in every release, whatever the order of lists. Nodes that see the
// same mesh therefore agree without asking each other, and a node that sees
// another mesh costs a detour, never correctness.
package geo
