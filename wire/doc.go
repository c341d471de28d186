// Package wire is the language that clients and nodes speak: the protobuf
// schema, the framing of streams, the limits and the error codes.
//
// It promises that decoding never allocates more than a named limit, that
// every malformed input yields a typed *Error, and that a frame of a version
// newer than this package knows is refused rather than guessed at.
package wire
