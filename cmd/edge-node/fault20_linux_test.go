package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// signal sends a signal that does not end a node.
func (j *judged) signal(node string, sig syscall.Signal) {
	j.t.Helper()
	if err := syscall.Kill(j.pid(node), sig); err != nil {
		j.t.Fatal(err)
	}
}

// The process of a leader is stopped for a while, as by a debugger or a host
// that is short of memory, and goes on as if nothing had been. Others lead by
// then; it must find out before it answers who has waited for it meanwhile.
// After 10 s its clients have given up and come anew; after 2 s their requests
// wait in its socket.
func TestFault20LeaderIsStoppedForAWhile(t *testing.T) {
	t.Parallel()
	j := judgedMesh(t, "--regions", "fra", "--nodes", "3")
	j.enter("lobby", "kitchen")
	j.talk()
	j.flows(time.Now())
	group := j.groupOf("lobby")
	for _, d := range []time.Duration{10 * time.Second, 2 * time.Second} {
		node := j.explain(group).Leader
		faithful := j.dial("faithful-to-"+node, j.addr(node)) // and knows no other
		stopped := time.Now()
		j.signal(node, syscall.SIGSTOP)
		asking, cancel := context.WithTimeout(t.Context(), d)
		var asked sync.WaitGroup
		asked.Go(func() {
			for asking.Err() == nil {
				for _, room := range j.rooms {
					asked.Go(func() { j.ask(t.Context(), faithful, "faithful", room) })
				}
				passes(asking, 100*time.Millisecond)
			}
		})
		if d > 5*time.Second { // time enough for all, those of that node included
			others := j.flows(stopped, node)
			if others > 5*time.Second { // an election of 1 s, and patience with a busy machine
				t.Errorf("users of other nodes send again after %v only", others)
			}
			t.Logf("users of other nodes send again after %v, everyone after %v", others.Round(time.Millisecond), j.flows(stopped).Round(time.Millisecond))
		}
		<-asking.Done()
		j.signal(node, syscall.SIGCONT)
		cancel()
		j.flows(time.Now())
		answered := make(chan struct{})
		go func() { asked.Wait(); close(answered) }()
		select {
		case <-answered:
		case <-time.After(openWithin):
			t.Fatalf("%s runs again and does not answer", node)
		}
	}
	h := j.judge()
	late := 0
	for _, r := range h.Reads {
		if r.Observer == "faithful" {
			late++
		}
	}
	t.Logf("%d sends, %d reads of which %d waited for the stopped leader", len(h.Sends), len(h.Reads), late)
	if late == 0 {
		t.Error("nobody has waited for the stopped leader")
	}
}

// A node is asked to end while a snapshot travels: the one that sends it, and
// the one that takes it.
func TestFault20EndsDuringSnapshot(t *testing.T) {
	t.Parallel()
	const messages, size = 1150, 30 << 10 // a log above SnapshotBytes
	j := judgedMesh(t, "--regions", "fra", "--nodes", "3")
	j.pause = 200 * time.Millisecond // the snapshot is what matters
	j.enter("lobby", "kitchen")
	j.talk()
	j.flows(time.Now())
	archive := &lane{c: j.dial("archivist", j.addr("fra-1"), j.addr("fra-2"), j.addr("fra-3")), user: "archivist", room: "archive"}
	j.send(archive)
	waitFor(t, "ack of the archive", func() bool { return archive.acked.Load() > 0 })
	group := j.groupOf(archive.room)
	p := j.explain(group)
	behind := p.Voters[slices.IndexFunc(p.Voters, func(v string) bool { return v != p.Leader })]
	j.signal(behind, syscall.SIGSTOP)
	began := time.Now()
	for archive.n < messages {
		archive.n++
		noise := make([]byte, size*3/4) // a snapshot is compressed, and is to take its time
		for i := range noise {
			noise[i] = byte(j.rng.Uint32())
		}
		j.say(archive, base64.StdEncoding.EncodeToString(noise))
	}
	filled := time.Now()
	waitFor(t, "ack of what fills the archive", func() bool {
		j.send(archive)
		return archive.acked.Load() > filled.UnixNano()
	})
	t.Logf("filled within %v", time.Since(began).Round(time.Millisecond))
	files := snapshots{data: j.data, group: group, seen: map[string]time.Time{}}
	j.signal(behind, syscall.SIGCONT)
	type moment struct {
		file  string
		taker bool // is to end, not the sender
	}
	// The sender comes last: the next leader may have a log that reaches back so far
	// that it needs no snapshot.
	moments := []moment{{"received", true}, {"export", false}}
	if os.Getenv("STARLING_LONG") != "" {
		moments = slices.Insert(moments, 1, moment{"export", true})
	}
	for _, x := range moments {
		node := files.next(t, x.file)
		if x.taker {
			node = behind
		}
		j.strike(t, syscall.SIGTERM, node)
		j.back(t)
		t.Logf("%s ended when there was a file %q", node, x.file)
	}
	j.flows(time.Now())
	j.quiet()
	j.export(j.rec, archive.c, "export", archive.room)
	h := j.judge()
	t.Logf("%d sends", len(h.Sends))
}

// snapshots looks for the files that nodes have while a snapshot travels.
type snapshots struct {
	data  string
	group uint32
	seen  map[string]time.Time
}

// next waits for a file of a kind that was not there before, and returns the
// node that has it.
func (s snapshots) next(t *testing.T, kind string) (node string) {
	t.Helper()
	waitFor(t, "snapshot under way: "+kind, func() bool {
		files, err := filepath.Glob(filepath.Join(s.data, "*", "snapshots", fmt.Sprintf("%d-*.%s", s.group, kind)))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			info, err := os.Stat(f)
			if err != nil || info.ModTime().Equal(s.seen[f]) {
				continue
			}
			s.seen[f] = info.ModTime()
			rest, _ := filepath.Rel(s.data, f)
			node, _, _ = strings.Cut(rest, string(filepath.Separator))
			return true
		}
		return false
	})
	return node
}
