// Package edge is the front door of a node: it takes connections of clients, over
// QUIC and WebSocket, finds out who they are, and hands them on as sessions.
//
// It promises that nothing a client says is acted upon before its token was
// verified, that the sender of a message is the token's user and never a
// field of a frame, and that clients who are not who they claim to be learn
// nothing but that.
package edge
