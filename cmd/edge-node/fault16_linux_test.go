package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/client"
)

// Two of three voters of the directory do not answer. Rooms go on and are made
// in all groups that have a quorum; only rules do not change. Then all goes on.
func TestFault16DirectoryWithoutQuorum(t *testing.T) {
	t.Parallel()
	j := judgedMesh(t, "--regions", "fra,iad,sin,gru,syd")
	j.pause = 200 * time.Millisecond // there are many rooms, each with a user on every node
	groups, err := groupsOf(t.Context(), j.admin)
	if err != nil {
		t.Fatal(err)
	}
	gone, lives := withoutDirectory(t, groups)
	maker := j.dial("maker", j.addr(awake(groups, gone)))
	var all []string
	for i := range 12 {
		all = append(all, fmt.Sprint("old-", i))
	}
	j.enter(all...)
	began := time.Now()
	for _, l := range j.lanes {
		j.send(l)
	}
	j.flows(began.Add(-time.Nanosecond))
	j.rooms = nil // from here on people talk in those that will go on
	for _, r := range lines[[]starling.RoomInfo](t, output(t, j.home, "", "rooms", "--json"))[0] {
		if lives[r.Group] {
			j.rooms = append(j.rooms, r.Room)
		}
	}
	j.lanes = slices.DeleteFunc(j.lanes, func(l *lane) bool { return !slices.Contains(j.rooms, l.room) })
	j.talk()
	j.flows(time.Now())

	stopped := time.Now()
	for _, node := range gone {
		j.signal(node, syscall.SIGSTOP)
	}
	t.Logf("%v are stopped; the users of others send again after %v", gone, j.flows(stopped, gone...).Round(time.Millisecond))
	var change sync.WaitGroup
	change.Go(func() {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := j.admin.Query(ctx, "apps.rules.put", "1", devApp, "team/*", "fra"); err == nil {
			t.Error("a rule was changed without the directory")
		}
	})
	made := j.makeRooms(maker, 40)
	change.Wait()
	for _, node := range gone {
		j.signal(node, syscall.SIGCONT)
	}
	j.flows(time.Now())
	for _, r := range lines[[]starling.RoomInfo](t, output(t, j.home, "", "rooms", "--json"))[0] {
		if ok, tried := made[r.Room]; tried && ok != lives[r.Group] {
			t.Errorf("%s of group %d was made: %v; the group had a quorum: %v", r.Room, r.Group, ok, lives[r.Group])
		}
	}
	if _, err := j.admin.Query(t.Context(), "apps.rules.put", "2", devApp, "team/*", "fra"); err != nil {
		t.Errorf("a rule with the directory back: %v", err)
	}
	j.quiet() // who asks goes through the rooms
	j.rooms = all
	j.judge()
}

// withoutDirectory returns two voters of the directory, and the groups that have
// a quorum without them, of which there are some and not all.
func withoutDirectory(t *testing.T, groups []starling.GroupInfo) (gone []string, lives map[uint32]bool) {
	dir := slices.DeleteFunc(slices.Clone(groups[0].Replicas), func(r starling.ReplicaInfo) bool { return !r.Voter })
	for i := range dir {
		gone, lives = []string{dir[i].Node, dir[(i+1)%len(dir)].Node}, map[uint32]bool{}
		for _, g := range groups[1:] {
			lost := 0
			for _, r := range g.Replicas {
				if r.Voter && slices.Contains(gone, r.Node) {
					lost++
				}
			}
			lives[g.ID] = lost < 2
		}
		n := 0
		for _, ok := range lives {
			if ok {
				n++
			}
		}
		if n > 0 && n < len(lives) {
			return gone, lives
		}
	}
	t.Fatalf("all groups have the voters of the directory, or none: %+v", groups)
	return nil, nil
}

// awake is a node that is not gone.
func awake(groups []starling.GroupInfo, gone []string) string {
	for _, g := range groups {
		for _, r := range g.Replicas {
			if !slices.Contains(gone, r.Node) {
				return r.Node
			}
		}
	}
	return ""
}

// makeRooms sends to rooms that are not there yet, and returns which were made.
func (j *judged) makeRooms(c *client.Client, n int) map[string]bool {
	ctx, cancel := context.WithTimeout(j.t.Context(), 8*time.Second)
	defer cancel()
	type end struct {
		room string
		err  error
	}
	ends := make(chan end, n)
	for i := range n {
		room := fmt.Sprint("new-", i)
		c.Send(ctx, client.Message{Room: room, Content: "hi"}, func(_ client.Ack, err error) { ends <- end{room, err} })
	}
	made := map[string]bool{}
	for range n {
		e := <-ends
		made[e.room] = e.err == nil
	}
	return made
}
