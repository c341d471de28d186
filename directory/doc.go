// Package directory says which apps a mesh has, which nodes and groups, and in
// which group each room lives.
//
// It is a pure state machine. Its log is a room of the mesh: each event's
// content is one Change, as a JSON document. Every node follows that room and
// folds it into its own State, so that reading the directory asks nobody, and
// a node that is cut off goes on with what it knows.
//
// The package promises:
//
//   - A State never changes; Apply returns another. Nodes that folded the same
//     changes have equal states.
//   - Locate is a pure function of the room's id and the State. Making a room
//     writes nothing here.
//   - A document of a later release is refused with newer_format, never read
//     by half.
package directory
