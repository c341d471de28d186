// Package room holds the rules of a room: a command goes in, a numbered event
// comes out, and every replica that applies the same commands has the same
// room.
//
// State is the pure heart: a small value that never grows. What grows with a
// room's history, its events, receipts and members, is in a Store that the
// host of a group gives to Machine, which keeps any number of rooms in it.
//
// The package promises:
//
//   - The seq of a room's events is 1, 2, 3 … without a hole, and their time
//     never runs backwards.
//   - A client_msg_id takes effect once: the same payload again returns the
//     first ack, another payload is a conflict, for as long as the room lives.
//   - The result of a command depends on the commands before it and on the
//     times they were given, and on nothing else; not on how they were batched.
//   - A malformed command is a *Refusal, the same on every replica of every
//     release.
//
// Where a room lives is not its own affair, but that one id never gets two
// histories is: a group that was asked by a Claim makes no room any more for
// who goes by older rules, and one that was told Elsewhere says where a room is.
//
// The one panic is for what this release cannot read: a stored value, or a
// command that a later release has put in the log, by its format, its kind or
// its access. The host must end: replicas of the later release have applied the
// command, and one that refused it and went on would be another room. The value
// of the panic is a *Refusal with code newer_format, or internal if a stored
// value is damaged. So a door must let in only what DecodeCommand and Validate
// accept; they never panic.
package room
