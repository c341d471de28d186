package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tamper lets a node's system calls do something else, as strace's inject says
// it, until the returned function is called or the node has ended.
func (j *judged) tamper(node, calls, instead string) (stop func()) {
	j.t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		j.t.Skip("needs strace, which makes a disk fail: apt-get install strace")
	}
	cmd := exec.Command(path, "-f", "-o", os.DevNull, "-p", fmt.Sprint(j.pid(node)), "-e", "trace="+calls, "-e", "inject="+calls+":"+instead)
	said := new(heard)
	said.also = testLog{j.t, "strace"}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		j.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-ended
	}
	j.t.Cleanup(stop)
	waitFor(j.t, "system call that is another", func() bool {
		select {
		case <-ended:
			if strings.Contains(said.String(), "not permitted") {
				j.t.Skip("needs the right to trace processes: run as root")
			}
			return strings.Contains(said.String(), "attached")
		default:
			return strings.Contains(said.String(), "attached")
		}
	})
	return stop
}

// faulty expects that a node ends by itself because of its disk.
func (j *judged) faulty(node string) {
	j.lives.mu.Lock()
	defer j.lives.mu.Unlock()
	if j.struck == nil {
		j.struck = map[string]int{}
	}
	j.struck[node]++
}

// A disk that cannot sync, or has no room, ends its node with words; the others
// go on, and when the node comes back nothing that was acked is missing.
func TestFault03DiskFails(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct{ calls, instead, says string }{
		"sync": {"fdatasync", "error=EIO", "input/output error"},
		"room": {"fallocate,pwrite64,fdatasync", "error=ENOSPC", "no space left on device"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := judgedMesh(t, "--regions", "fra", "--nodes", "3")
			j.enter("lobby", "kitchen")
			j.talk()
			j.flows(time.Now())
			node := j.explain(j.groupOf("lobby")).Leader
			j.faulty(node)
			began := time.Now()
			j.tamper(node, x.calls, x.instead)
			j.back(t)
			t.Logf("%s ended and runs again; everyone sends after %v", node, j.flows(began).Round(time.Millisecond))
			if out := j.said.String(); !strings.Contains(out, "the disk failed") || !strings.Contains(out, x.says) {
				t.Errorf("%s did not say what is wrong with its disk: %q", node, out)
			}
			j.flows(time.Now())
			j.judge()
		})
	}
}

// The disk of a leader takes nothing any more. Another leads, long before the
// disk is well again; then all go on.
func TestFault05DiskStalls(t *testing.T) {
	t.Parallel()
	j := judgedMesh(t, "--regions", "fra", "--nodes", "3")
	j.enter("lobby", "kitchen")
	j.talk()
	j.flows(time.Now())
	group := j.groupOf("lobby")
	node := j.explain(group).Leader
	began := time.Now()
	heal := j.tamper(node, "fdatasync", "delay_enter=60000000")
	waitFor(t, "other leader", func() bool {
		return j.leaderOf(group, node) != ""
	})
	others := time.Since(began)
	all := j.flows(began)
	t.Logf("another leads after %v, everyone sends again after %v", others.Round(time.Millisecond), all.Round(time.Millisecond))
	heal()
	j.flows(time.Now())
	j.judge()
}

// leaderOf returns who leads a group, "" if nobody does or the one named.
func (j *judged) leaderOf(group uint32, but string) string {
	j.t.Helper()
	groups, err := groupsOf(j.t.Context(), j.admin)
	if err != nil {
		return "" // the node that was asked cannot tell now
	}
	for _, g := range groups {
		if g.ID == group && g.Leader != but {
			return g.Leader
		}
	}
	return ""
}

// The log of a node that was killed is damaged at its end, or cut off: what it
// had synced is not there any more. It says so, takes part again only when the
// others have told it, and harms nobody.
func TestFault04DiskForgets(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(*os.File, int64) error{
		"flip": func(f *os.File, size int64) error {
			b := make([]byte, 1)
			at := size - size/8
			if _, err := f.ReadAt(b, at); err != nil {
				return err
			}
			b[0] ^= 0x10
			_, err := f.WriteAt(b, at)
			return err
		},
		"cut": func(f *os.File, size int64) error { return f.Truncate(size - size/4) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := judgedMesh(t, "--regions", "fra", "--nodes", "3", "--restart-after", "1s")
			j.enter("lobby", "kitchen")
			j.talk()
			j.flows(time.Now())
			node := j.explain(j.groupOf("lobby")).Leader
			j.strike(t, syscall.SIGKILL, node)
			if err := damageLog(filepath.Join(j.data, node), damage); err != nil {
				t.Fatal(err)
			}
			j.back(t)
			waitFor(t, "word of "+node+" about what its disk has lost", func() bool {
				return strings.Contains(j.said.String(), "must catch up before it votes")
			})
			j.flows(time.Now())
			j.judge()
		})
	}
}

// damageLog damages the newest write-ahead log of a node.
func damageLog(dir string, damage func(*os.File, int64) error) error {
	var newest string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".log") && filepath.Base(path) > filepath.Base(newest) {
			newest = path
		}
		return err
	})
	if err != nil || newest == "" {
		return errors.Join(err, fmt.Errorf("the log is %q", newest))
	}
	f, err := os.OpenFile(newest, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := written(f)
	if err != nil {
		return err
	}
	return damage(f, size)
}

// written is how much of a file was written: its space is allocated ahead, as zeros.
func written(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	all := make([]byte, info.Size())
	if _, err := f.ReadAt(all, 0); err != nil {
		return 0, err
	}
	end := len(all) - slices.IndexFunc(reversed(all), func(b byte) bool { return b != 0 })
	return int64(end), nil
}

func reversed(b []byte) []byte {
	b = slices.Clone(b)
	slices.Reverse(b)
	return b
}
