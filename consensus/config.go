package consensus

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/starling-im/starling/wire"
)

// The bounds of a Host.
const (
	// QueuedCommands and QueuedBytes bound the commands of one group that wait
	// to be put into an entry; beyond, Propose says overloaded.
	QueuedCommands = 8192
	QueuedBytes    = 16 << 20
	// EntryBytes bounds the commands of one Raft entry, and so one command.
	EntryBytes = 256 << 10
	// maxAppendEntries is how many entries one AppendEntries carries. Raft
	// counts entries, not bytes: this many of the largest fit wire.NodeFrame,
	// with 256 KiB to spare for their headers.
	maxAppendEntries = wire.NodeFrame/EntryBytes - 1
	// pipelined bounds the unanswered AppendEntries of a group to one peer.
	pipelined = 8
	// unsentBytes bounds what waits for the stream to one peer.
	unsentBytes = 2 * wire.NodeFrame
	// inboxMessages and inboxBytes bound the requests of peers that wait for
	// one group; more are answered with an error, and the peer sends again.
	inboxMessages = 256
	inboxBytes    = 4 * wire.NodeFrame
	// recentEntries and recentBytes bound the log entries kept in memory per
	// group, for followers that are a round trip behind.
	recentEntries = 256
	recentBytes   = 1 << 20
	// snapshotsInFlight bounds the snapshots sent, and those received, at once.
	snapshotsInFlight = 2
	// importBytes bounds one batch while a snapshot is taken over.
	importBytes = 1 << 20
	// importFlush is how much of a snapshot is taken over before Pebble must
	// have written it: its memtables alone could fill a node of 256 MiB.
	importFlush = 32 << 20

	// requestTimeout is how long a peer may take to answer.
	requestTimeout = 3 * time.Second
	// dialTimeout bounds the opening of a stream.
	dialTimeout = 5 * time.Second
	// redialFirst and redialMost bound the pause after a stream broke.
	redialFirst = 50 * time.Millisecond
	redialMost  = time.Second
	// installTimeout is how long a follower may take to install a snapshot
	// that it has received.
	installTimeout = 10 * time.Minute
	// drainTimeout is how long Close waits for commands under way.
	drainTimeout = 300 * time.Millisecond
	// overloadPause is the retry_after of a refused command.
	overloadPause = 50 * time.Millisecond
)

// ErrLocked says that another process uses the folder.
var ErrLocked = errors.New("consensus: data folder is in use by another process")

// ErrHalfRestored says that a group's data is half of a snapshot whose file is
// gone: it must be given up and fetched anew from the other replicas.
var ErrHalfRestored = errors.New("consensus: group was left in the middle of a snapshot")

// Machine is the state machine of one group. Its methods are called from one
// goroutine at a time.
type Machine interface {
	// Apply applies the commands of one entry and returns a result for each.
	// It is the same on every replica. now is the leader's clock in ms since
	// 1970. The commands are valid during the call only. A machine that must
	// not go on, because of a command or a value of a later release, panics
	// with an error: the Host ends with it.
	Apply(tx Tx, now int64, commands [][]byte) []any
	// Committed is called when what was applied has been written.
	Committed()
	// Restored is called when a snapshot has replaced the state.
	Restored()
}

// Reader reads the data of one group; keys are relative to it. A storage error
// never reaches the caller: it ends the Host and the surrounding call.
type Reader interface {
	// Get returns the value of key, valid until the next call.
	Get(key []byte) ([]byte, bool)
	// Scan calls fn for from ≤ key < to in order (nil = no bound) until it
	// returns false; key and value are valid during fn only.
	Scan(from, to []byte, fn func(key, value []byte) bool)
	// Last returns the highest key with from ≤ key < to, valid until the next
	// call.
	Last(from, to []byte) (key []byte, ok bool)
}

// Tx is a Reader that sees its own writes.
type Tx interface {
	Reader
	Set(key, value []byte)
	Delete(key []byte)
}

// FS is the filesystem that holds the data.
type FS = vfs.FS

// Stream is a connection to another node.
type Stream interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Config says how a Host works. Node, Dir, Machine and Dial are required.
type Config struct {
	Node string // this node's id
	Dir  string // the folder that holds everything
	FS   vfs.FS // default: the disk
	// NoSync gives up durability: for tests that must then fail.
	NoSync bool
	// Machine returns the state machine of a group that starts.
	Machine func(group uint32) Machine
	// Join says whether this node wants the replica of a group that it does not
	// run, but of which a leader sends entries to it; nil = never. It may take
	// its time. The replica starts empty: Group.Voters does not count.
	Join func(group uint32) (Group, bool)
	// Left is called when this node's replica of a group has ended, while the
	// Host goes on; nil = nobody asks.
	Left func(group uint32)
	// Dial opens a stream that the other node gives to Serve, or for a
	// snapshot to ServeSnapshot.
	Dial func(ctx context.Context, node string, snapshot bool) (Stream, error)
	// Nodes returns all nodes that may hold replicas; nil = only the voters of a
	// group are asked whether it goes on without this node.
	Nodes func() []string
	// RTT is the least round trip to a node, 0 = not known; nil = all are near.
	RTT func(node string) time.Duration
	// Fatal is called once, with the first storage error. It should end the
	// process. Default: panic.
	Fatal func(error)
	Log   *slog.Logger // default: discard
	// Heartbeat is how long a follower waits for its leader before it stands
	// for election; default 1.5 s, for groups that span regions.
	Heartbeat time.Duration
	// CommitTimeout is how often a quiet leader repeats what it has
	// committed; default 800 ms.
	CommitTimeout time.Duration
	// ProposeTimeout is when a command's outcome is called unknown; default 5 s.
	ProposeTimeout time.Duration
	// Depth is how many entries of a group may be under way where its voters are
	// near; default 1. More and smaller entries cost more than the wait for one.
	Depth int
	// SnapshotEvery and TrailingLogs, in entries, say when a log is cut and
	// how much of it stays; defaults 8192 and 2048.
	SnapshotEvery, TrailingLogs uint64
	// SnapshotBytes and TrailingBytes say the same in bytes, and are looked at
	// every second; whichever comes first counts. The defaults, 32 MiB and
	// 16 MiB, are less than a memtable together, so that most entries are gone
	// before they would be written a second time; and a follower that lacks
	// more than 16 MiB takes no longer for a snapshot of an ordinary group.
	SnapshotBytes, TrailingBytes uint64
	// SnapshotInterval is how often the entries are looked at; default 30 s.
	SnapshotInterval time.Duration
}

func (c Config) withDefaults() Config {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Fatal == nil {
		c.Fatal = func(err error) { panic(err) }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Heartbeat = cmp.Or(c.Heartbeat, 1500*time.Millisecond)
	c.CommitTimeout = cmp.Or(c.CommitTimeout, 800*time.Millisecond)
	c.ProposeTimeout = cmp.Or(c.ProposeTimeout, 5*time.Second)
	c.Depth = cmp.Or(c.Depth, 1)
	c.SnapshotEvery = cmp.Or(c.SnapshotEvery, 8192)
	c.TrailingLogs = cmp.Or(c.TrailingLogs, 2048)
	c.SnapshotBytes = cmp.Or(c.SnapshotBytes, 32<<20)
	c.TrailingBytes = cmp.Or(c.TrailingBytes, 16<<20)
	c.SnapshotInterval = cmp.Or(c.SnapshotInterval, 30*time.Second)
	return c
}

// Group says what a node needs to know to take part in a group.
type Group struct {
	ID uint32
	// Voters is the first configuration, the same at every node. Later ones
	// are in the log. A node that is not in it waits to be added.
	Voters []string
	// Preferred says that this node should lead when nobody does.
	Preferred bool
	// Heartbeat is Config.Heartbeat for this group, the same at every node; 0 =
	// that of Config. A group whose voters are in one region does with 500 ms.
	Heartbeat time.Duration
}

// Status is what a node knows of a group.
type Status struct {
	ID        uint32
	Leader    string // "" = unknown
	State     string // leader, follower, candidate or shutdown; stalled while the disk does not answer
	Term      uint64
	Applied   uint64 // last entry in the data
	Commit    uint64 // last entry known to be committed
	LastIndex uint64 // last entry in the log
	LastTerm  uint64 // its term
	Voters    []string
	// Doubt says why this replica neither votes nor leads, "" = it does both:
	// its disk may have forgotten what it had acknowledged. The doubt ends by
	// itself once the log has reached Tip (0 = not known yet), for which a
	// quorum of other voters is needed; else only Recover ends it.
	Doubt string
	Tip   uint64
	// Replicas is the newest configuration that this node knows of.
	Replicas []Replica
	// ConfigIndex is the entry of the newest configuration that is committed,
	// as far as this node knows.
	ConfigIndex uint64
	// Epoch is when the group was last recovered with loss, 0 = never: other
	// epochs are other histories.
	Epoch uint64
	// Removed says that the group goes on without this replica, which may be
	// dropped. Where it never hears of that it keeps silent nevertheless.
	Removed bool
}
