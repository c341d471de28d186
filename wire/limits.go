package wire

import "time"

// The bounds of the protocol; docs/reference/limits.md has them all, with what
// happens at each.
const (
	// ClientFrame is the largest payload of a frame from or to a client, in bytes.
	ClientFrame = 64 << 10
	// NodeFrame is the largest payload of a frame between nodes, in bytes.
	NodeFrame = 4 << 20
	// Content is the largest content of a message, in bytes.
	Content = 32 << 10
	// ZstdWindow is the largest zstd window that is accepted, in bytes.
	ZstdWindow = 8 << 20
	// CompressAbove is the size in bytes from which link frames are compressed.
	CompressAbove = 256
	// PageEvents and PageBytes bound one page of history.
	PageEvents = 200
	PageBytes  = 1 << 20
	// Follows bounds the follows of one session.
	Follows = 1000
	// InFlight bounds the unanswered sends of one session.
	InFlight = 64
	// SessionUnsent bounds the bytes that wait in a session's writers.
	SessionUnsent = 256 << 10
	// AuthenticateWithin is the time a client has to say Hello.
	AuthenticateWithin = 5 * time.Second
	// IdleTimeout is the silence after which a connection is given up.
	IdleTimeout = 60 * time.Second
	// WriteStall is how long a peer may take nothing of what is written to it.
	WriteStall = 10 * time.Second
	// TypingFor is how long who types is held to type, TypingAgain how often that is
	// to be said meanwhile.
	TypingFor   = 6 * time.Second
	TypingAgain = 3 * time.Second
	// AggregateEvery is the least time between two aggregates of one room over one
	// link, and between two Signals of one follow.
	AggregateEvery = 250 * time.Millisecond
	// TypingNames bounds the users who type that are named; others are counted.
	TypingNames = 8
	// LineBytes is the longest text that is said live, in bytes.
	LineBytes = 512
	// Watches bounds the users whom one session watches.
	Watches = 256
	// TokenLife and ClockSkew bound what a token may claim.
	TokenLife = time.Hour
	ClockSkew = 30 * time.Second
)

// nodeBuffer and clientBuffer are how much a Reader asks of its stream at once, in bytes:
// of clients there are many, and they say little.
const (
	nodeBuffer   = 4 << 10
	clientBuffer = 128
)

// firstPart is the memory in bytes that a frame is given before anything of it has come. It
// gets more as it comes: six bytes of header must not hold all that they promise.
const firstPart = 4 << 10
