package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/starling-im/starling/client"
)

// failover is a mesh in which leaders are killed.
type failover struct {
	name string
	args []string // of dev; who was killed stays away until it is over
}

var failovers = []failover{
	{"one region", []string{"--regions", "fra", "--nodes", "3", "--restart-after", "3s"}},
	{"three regions", []string{"--wan", "--restart-after", "8s"}},
}

// trials is how often each is measured.
const trials = 50

// TestFailover measures how long a user waits for the next ack when the process
// of a leader is killed: one who is connected to another node, and sends one
// message after the other. With STARLING_FAILOVER=folder it makes as many trials
// as are missing in the files there, and prints a table; else it makes one.
func TestFailover(t *testing.T) {
	folder := os.Getenv("STARLING_FAILOVER")
	if folder == "" {
		t.Parallel()
		took := judgedMesh(t, "--regions", "fra", "--nodes", "3", "--restart-after", "2s").failover(0)
		t.Logf("the next ack came %v after the kill", took.Round(time.Millisecond))
		if took > 2*time.Second {
			t.Error("it came when the killed node was back")
		}
		return
	}
	fmt.Println("| mesh | trials | median | p99 | max |\n|---|---|---|---|---|")
	for _, f := range failovers {
		file := filepath.Join(folder, "failover, "+f.name+".jsonl")
		took := readTrials(t, file)
		if len(took) < trials {
			j := judgedMesh(t, f.args...)
			for len(took) < trials {
				d := j.failover(len(took))
				appendTrial(t, file, d)
				t.Logf("%s: %v", f.name, d)
				took = append(took, d)
			}
			j.stop(t)
		}
		slices.Sort(took)
		at := func(percent int) time.Duration { return took[(len(took)*percent+99)/100-1].Round(time.Millisecond) }
		fmt.Printf("| %s, `dev %s` | %d | %v | %v | %v |\n", f.name, f.command(), len(took), at(50), at(99), at(100))
	}
}

// command is what dev is called with.
func (f failover) command() (args string) {
	args = "--processes"
	for _, a := range f.args {
		args += " " + a
	}
	return args
}

// failover kills a leader once, and returns after what time the next send of
// a user of another node is acked. Then it waits until all is as before.
func (j *judged) failover(n int) time.Duration {
	j.t.Helper()
	if j.rec == nil {
		j.enter()
	}
	room := fmt.Sprint("failover-", n%16)
	publish := func(c *client.Client) {
		j.t.Helper()
		if _, err := c.Publish(j.t.Context(), client.Message{Room: room, Content: "are you there?"}); err != nil {
			j.t.Fatal(err)
		}
	}
	publish(j.clients[0])
	group, leader := j.groupOf(room), ""
	waitFor(j.t, "leader that is at home", func() bool {
		p := j.explain(group)
		leader = p.Leader
		return leader != "" && p.Next == ""
	})
	others := slices.DeleteFunc(j.names(), func(node string) bool { return node == leader })
	c := j.dial("somebody", j.addr(others[j.rng.IntN(len(others))]))
	defer c.Close()
	moment := time.Now().Add(below(j.rng, time.Second))
	for time.Now().Before(moment) {
		publish(c)
	}
	if now := j.explain(group).Leader; now != leader {
		j.t.Logf("the lead went from %s to %s: once more", leader, now)
		return j.failover(n)
	}
	killed := time.Now()
	j.strike(j.t, os.Kill, leader)
	publish(c)
	took := time.Since(killed)
	j.back(j.t)
	j.equalReplicas()
	j.diedOnly(j.t)
	return took
}

// trial is one line of a file of trials.
type trial struct {
	MS float64 `json:"ms"`
}

func readTrials(t *testing.T, file string) (took []time.Duration) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, x := range lines[trial](t, string(b)) {
		took = append(took, time.Duration(x.MS*float64(time.Millisecond)))
	}
	return took
}

func appendTrial(t *testing.T, file string, took time.Duration) {
	t.Helper()
	line, err := json.Marshal(trial{float64(took.Microseconds()) / 1000})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.Write(append(line, '\n'))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
