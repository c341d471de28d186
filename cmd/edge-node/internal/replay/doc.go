// Package replay plays recorded chats through a mesh and judges what comes out
// at the other side.
//
// It promises that each record is sent exactly once in effect, under an id
// that follows from the run's name and the record's line, so that a run of the
// same name goes on where it stopped; and that the verdict rests on nothing but
// what followers received, compared with what was sent and acknowledged.
package replay
