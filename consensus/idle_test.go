//go:build linux

package consensus

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// idle is what a node costs that does nothing.
type idle struct {
	Goroutines     int
	MemoryBytes    uint64  // resident, of the process
	Writes, Bytes  float64 // per second, to its streams
	ProcessorShare float64 // of one processor
}

const (
	idleSettle = 5 * time.Second
	idleWatch  = 10 * time.Second
	// idleNode and idleGroups tell a process of BenchmarkIdle what it is.
	idleNode, idleGroups = "STARLING_IDLE_NODE", "STARLING_IDLE_GROUPS"
)

// BenchmarkIdle measures three nodes with many groups and nothing to do: in one
// process, and in three, connected by pipes and by Unix sockets. What QUIC
// costs is not in it. It is make measure-groups.
func BenchmarkIdle(b *testing.B) {
	for _, groups := range []int{16, 128, 1000} {
		b.Run(fmt.Sprintf("groups=%d/processes=1", groups), func(b *testing.B) { report(b, idleInOne(b, groups), 3) })
		b.Run(fmt.Sprintf("groups=%d/processes=3", groups), func(b *testing.B) { report(b, idleInThree(b, groups), 1) })
	}
}

// report prints what one node costs.
func report(b *testing.B, i idle, nodes float64) {
	b.ReportMetric(float64(i.Goroutines)/nodes, "goroutines")
	b.ReportMetric(float64(i.MemoryBytes)/nodes/(1<<20), "MiB")
	b.ReportMetric(i.Writes/nodes, "writes/s")
	b.ReportMetric(i.Bytes/nodes, "bytes/s")
	b.ReportMetric(100*i.ProcessorShare/nodes, "%cpu")
	b.ReportMetric(0, "ns/op")
}

// watch measures this process for a while, once all groups are led.
func watch(h *Host, groups int, writes, bytes *atomic.Int64) idle {
	for led := 0; led < groups; time.Sleep(100 * time.Millisecond) {
		led = 0
		for _, g := range h.all() {
			if g.leader() != "" && g.doubt() == sure {
				led++
			}
		}
	}
	time.Sleep(idleSettle)
	w, n, cpu, start := writes.Load(), bytes.Load(), processorTime(), time.Now()
	time.Sleep(idleWatch)
	took := time.Since(start).Seconds()
	return idle{
		Goroutines: runtime.NumGoroutine(), MemoryBytes: resident(), ProcessorShare: (processorTime() - cpu).Seconds() / took,
		Writes: float64(writes.Load()-w) / took, Bytes: float64(bytes.Load()-n) / took,
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func idleInOne(b *testing.B, groups int) idle {
	var writes, bytes atomic.Int64
	c := newCluster(b, nil, idleNames...)
	c.config = func(cfg *Config) {
		cfg.FS = vfs.Default
		from := cfg.Node
		cfg.Dial = func(_ context.Context, to string, snapshot bool) (Stream, error) {
			s, err := c.dial(from, to, snapshot)
			return counted{s, &writes, &bytes}, err
		}
	}
	for _, name := range idleNames {
		c.nodes[name].dir = b.TempDir()
		c.start(name, manyGroups(groups)...)
	}
	defer c.stopAll()
	return watch(c.host("a"), groups, &writes, &bytes)
}

func idleInThree(b *testing.B, groups int) idle {
	dir := b.TempDir()
	var results []*bufio.Reader
	for _, name := range idleNames {
		cmd := exec.Command(os.Args[0], "-test.run", "^$", "-test.bench", "^BenchmarkIdleNode$", "-test.benchtime", "1x")
		cmd.Env = append(os.Environ(), idleNode+"="+filepath.Join(dir, name), fmt.Sprintf("%s=%d", idleGroups, groups))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		defer func() {
			_ = in.Close()
			_ = cmd.Wait()
		}()
		results = append(results, bufio.NewReader(out))
	}
	var sum idle
	for _, r := range results {
		i := readIdle(b, r)
		sum.Goroutines += i.Goroutines / len(results)
		sum.MemoryBytes += i.MemoryBytes / uint64(len(results))
		sum.Writes += i.Writes / float64(len(results))
		sum.Bytes += i.Bytes / float64(len(results))
		sum.ProcessorShare += i.ProcessorShare / float64(len(results))
	}
	return sum
}

func readIdle(b *testing.B, r *bufio.Reader) (i idle) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			b.Fatalf("a node ended: %v", err)
		}
		if json.Unmarshal([]byte(line), &i) == nil {
			return i
		}
	}
}

// BenchmarkIdleNode is one process of BenchmarkIdle; alone it does nothing. It
// lives until its standard input ends.
func BenchmarkIdleNode(b *testing.B) {
	socket := os.Getenv(idleNode)
	if socket == "" || b.N > 1 {
		return
	}
	var writes, bytes atomic.Int64
	var groups int
	_, _ = fmt.Sscan(os.Getenv(idleGroups), &groups)
	dir, name := filepath.Split(socket)
	l, err := net.Listen("unix", socket+".sock")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	h, err := Open(Config{
		Node: name, Dir: filepath.Join(dir, "data-"+name), Machine: func(uint32) Machine { return &plain{} },
		Dial: func(_ context.Context, to string, snapshot bool) (Stream, error) {
			s, err := net.Dial("unix", filepath.Join(dir, to+".sock"))
			if err == nil {
				_, err = fmt.Fprintf(s, "%-16s", name)
			}
			return counted{s, &writes, &bytes}, err
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	go accept(l, h)
	for _, g := range manyGroups(groups) {
		g.Preferred = g.Voters[0] == name
		if err := h.Start(g); err != nil {
			b.Fatal(err)
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(watch(h, groups, &writes, &bytes))
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = h.Close()
}

// accept serves the streams of the other processes.
func accept(l net.Listener, h *Host) {
	for {
		s, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			from := make([]byte, 16)
			if _, err := io.ReadFull(s, from); err == nil {
				_ = h.Serve(strings.TrimSpace(string(from)), s)
			}
		}()
	}
}
