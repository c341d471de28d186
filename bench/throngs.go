package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/starling-im/starling/bench/internal/load"
)

// throngs are processes of clients that do the same, each with a part of every band.
type throngs []*throngProcess

type throngProcess struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	ask  *json.Encoder
	said *json.Decoder
}

// startThrongs spreads the bands over n processes. Those that are patient have the
// processors when nobody else wants them: a real crowd has its own. With apart the first
// band has another process to itself, so that it does not wait for the others' turn there.
func startThrongs(log io.Writer, n int, patient, apart bool, spec throngSpec) (all throngs, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	bands, processes := spec.Bands, n
	if apart {
		processes++
	}
	for i := range processes {
		spec.Bands = nil
		for k, b := range bands {
			switch first := apart && k == 0; {
			case first && i < n, !first && i == n:
				b.Clients = 0
			case !first:
				b.Clients = b.Clients*(i+1)/n - b.Clients*i/n
			}
			spec.Bands = append(spec.Bands, b)
		}
		line := []string{self, throngPart}
		if nice, err := exec.LookPath("nice"); patient && err == nil {
			line = append([]string{nice, "-n", "10"}, line...)
		}
		p := &throngProcess{cmd: exec.Command(line[0], line[1:]...)}
		p.cmd.Env, p.cmd.Stderr = partEnv(), log
		out, err := p.cmd.StdoutPipe()
		if err == nil {
			p.in, err = p.cmd.StdinPipe()
		}
		if err == nil {
			err = p.cmd.Start()
		}
		if err != nil {
			all.stop()
			return nil, err
		}
		all = append(all, p)
		p.ask, p.said = json.NewEncoder(p.in), json.NewDecoder(out)
		if err := p.ask.Encode(spec); err != nil {
			all.stop()
			return nil, err
		}
	}
	return all, nil
}

// stop ends them, by force if they take long.
func (all throngs) stop() {
	var work sync.WaitGroup
	for _, p := range all {
		work.Go(func() {
			late := time.AfterFunc(stopWithin, func() { _ = p.cmd.Process.Kill() })
			defer late.Stop()
			_ = p.in.Close()
			_ = p.cmd.Wait()
		})
	}
	work.Wait()
}

func (all throngs) pids() (pids []int) {
	for _, p := range all {
		pids = append(pids, p.cmd.Process.Pid)
	}
	return pids
}

// tell gives an order to all, and adds their answers up.
func (all throngs) tell(ctx context.Context, o order) (sum tale, err error) {
	defer context.AfterFunc(ctx, func() {
		for _, p := range all {
			_ = p.cmd.Process.Kill()
		}
	})()
	for _, p := range all {
		if err := p.ask.Encode(o); err != nil {
			return sum, err
		}
	}
	var failed error
	for _, p := range all {
		var t tale
		if err := p.said.Decode(&t); err != nil {
			return sum, fmt.Errorf("the clients failed at %q: %w", o.Do, errors.Join(err, context.Cause(ctx)))
		}
		if t.Failed != "" {
			failed = errors.Join(failed, errors.New(t.Failed))
		}
		sum.add(t)
	}
	return sum, failed
}

func (t *tale) add(other tale) {
	t.Last = max(t.Last, other.Last)
	if other.Back != nil {
		if t.Back == nil {
			t.Back = &load.Times{}
		}
		t.Back.Add(other.Back)
	}
	for i, b := range other.Bands {
		if i == len(t.Bands) {
			t.Bands = append(t.Bands, bandTale{Times: &load.Times{}, Refused: map[string]int{}})
		}
		sum := &t.Bands[i]
		sum.Deliveries += b.Deliveries
		sum.Lost += b.Lost
		sum.Repeated += b.Repeated
		sum.Ends += b.Ends
		sum.Times.Add(b.Times)
		for code, n := range b.Refused {
			sum.Refused[code] += n
		}
	}
}
