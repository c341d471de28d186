package consensus

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/starling-im/starling/wire"
)

// Raft identifies a server by an id and an address. Here both are the node's
// id: the way to a node is the mesh's business.

// header is what Raft wants to know of the sender of a request. On the wire
// there is none: the stream is the sender's.
func header(node string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(node), Addr: []byte(node)}
}

func appendMessage(group uint32, epoch uint64, r *raft.AppendEntriesRequest) *wire.RaftMessage {
	a := &wire.AppendEntries{Term: r.Term, PrevLogIndex: r.PrevLogEntry, PrevLogTerm: r.PrevLogTerm, LeaderCommit: r.LeaderCommitIndex}
	if len(r.Entries) > 0 {
		a.Entries = make([]*wire.LogEntry, len(r.Entries))
		all := make([]wire.LogEntry, len(r.Entries))
		for i, e := range r.Entries {
			to := &all[i]
			to.Index, to.Term, to.Type, to.Data, to.Extensions, to.AppendedAtNs = e.Index, e.Term, uint32(e.Type), e.Data, e.Extensions, unixNano(e.AppendedAt)
			a.Entries[i] = to
		}
	}
	return &wire.RaftMessage{Group: group, Epoch: epoch, Body: &wire.RaftMessage_Append{Append: a}}
}

// command turns a request of a node into what Raft takes.
func command(node string, m *wire.RaftMessage) (any, error) {
	h := header(node)
	switch b := m.Body.(type) {
	case *wire.RaftMessage_Append:
		a := b.Append
		r := &raft.AppendEntriesRequest{
			RPCHeader: h, Term: a.Term, PrevLogEntry: a.PrevLogIndex, PrevLogTerm: a.PrevLogTerm, LeaderCommitIndex: a.LeaderCommit,
		}
		for _, e := range a.Entries {
			r.Entries = append(r.Entries, &raft.Log{
				Index: e.Index, Term: e.Term, Type: raft.LogType(e.Type), Data: e.Data, Extensions: e.Extensions, AppendedAt: fromUnixNano(e.AppendedAtNs),
			})
		}
		return r, nil
	case *wire.RaftMessage_Vote:
		v := b.Vote
		return &raft.RequestVoteRequest{
			RPCHeader: h, Term: v.Term, LastLogIndex: v.LastLogIndex, LastLogTerm: v.LastLogTerm, LeadershipTransfer: v.LeadershipTransfer,
		}, nil
	case *wire.RaftMessage_PreVote:
		v := b.PreVote
		return &raft.RequestPreVoteRequest{RPCHeader: h, Term: v.Term, LastLogIndex: v.LastLogIndex, LastLogTerm: v.LastLogTerm}, nil
	case *wire.RaftMessage_TimeoutNow:
		return &raft.TimeoutNowRequest{RPCHeader: h}, nil
	}
	return nil, fmt.Errorf("no request that this node knows")
}

// answer turns Raft's response to a request into a message; id and group are
// those of the request.
func answer(group uint32, id uint64, response any, err error) *wire.RaftMessage {
	m := &wire.RaftMessage{Group: group, Id: id}
	if err != nil {
		m.Error = err.Error()
		return m
	}
	switch r := response.(type) {
	case *raft.AppendEntriesResponse:
		m.Body = &wire.RaftMessage_AppendReply{AppendReply: &wire.AppendEntriesReply{
			Term: r.Term, LastLog: r.LastLog, Success: r.Success, NoRetryBackoff: r.NoRetryBackoff,
		}}
	case *raft.RequestVoteResponse:
		m.Body = &wire.RaftMessage_VoteReply{VoteReply: &wire.RequestVoteReply{Term: r.Term, Granted: r.Granted}}
	case *raft.RequestPreVoteResponse:
		m.Body = &wire.RaftMessage_PreVoteReply{PreVoteReply: &wire.RequestVoteReply{Term: r.Term, Granted: r.Granted}}
	case *raft.TimeoutNowResponse:
		m.Body = &wire.RaftMessage_TimeoutNowReply{TimeoutNowReply: &wire.TimeoutNowReply{}}
	case *raft.InstallSnapshotResponse:
		m.Body = &wire.RaftMessage_SnapshotReply{SnapshotReply: &wire.InstallSnapshotReply{Term: r.Term, Success: r.Success}}
	default:
		m.Error = fmt.Sprintf("unexpected answer %T", response)
	}
	return m
}

// isAnswer tells answers from requests.
func isAnswer(m *wire.RaftMessage) bool {
	switch m.Body.(type) {
	case *wire.RaftMessage_AppendReply, *wire.RaftMessage_VoteReply, *wire.RaftMessage_PreVoteReply,
		*wire.RaftMessage_TimeoutNowReply, *wire.RaftMessage_SnapshotReply, *wire.RaftMessage_FindTipReply,
		*wire.RaftMessage_FindPlaceReply:
		return true
	}
	return m.Error != ""
}

func wrongAnswer(m *wire.RaftMessage) error {
	return wire.Errorf(wire.CodeProtocol, "raft answer of the wrong kind %T", m.Body)
}
