package simdisk

import (
	"fmt"
	"syscall"
	"time"
)

// Fault is something that goes wrong with a disk. Files in a fault are a
// pattern of package path for base names, such as "*.log"; "" = all. The
// faults that damage one file take the one of them that was written last.
type Fault interface {
	// inflict does the damage, or returns what operations meet from now on.
	inflict(d *Disk) (hook, error)
}

// op is an operation that is about to happen. A hook may take from size.
type op struct {
	kind kind
	file string
	size int // of a write, in bytes
}

type kind int

const (
	opRead kind = iota
	opWrite
	opSync
	opChange // creates, renames, links and removes
)

// hook returns the error that the operation ends with; healed ends its waits.
type hook func(o *op, healed <-chan struct{}) error

// Full takes After more bytes, then no more. The write that meets the end is
// written in part.
type Full struct{ After int }

func (f Full) inflict(d *Disk) (hook, error) {
	left := f.After
	return func(o *op, _ <-chan struct{}) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if o.kind != opWrite {
			return nil
		}
		if o.size <= left {
			left -= o.size
			return nil
		}
		o.size, left = left, 0
		return syscall.ENOSPC
	}, nil
}

// FailSync makes syncs fail, of folders too. What they should have synced
// stays unsynced.
type FailSync struct{ Files string }

func (f FailSync) inflict(*Disk) (hook, error) { return fails(opSync, f.Files), nil }

// FailRead makes reads fail.
type FailRead struct{ Files string }

func (f FailRead) inflict(*Disk) (hook, error) { return fails(opRead, f.Files), nil }

func fails(k kind, files string) hook {
	return func(o *op, _ <-chan struct{}) error {
		if o.kind == k && matches(files, o.file) {
			return syscall.EIO
		}
		return nil
	}
}

// Stall makes all but reads wait until For is over; 0 = until Heal.
type Stall struct {
	Files string
	For   time.Duration
}

func (f Stall) inflict(*Disk) (hook, error) {
	until := time.Now().Add(f.For)
	return func(o *op, healed <-chan struct{}) error {
		switch wait := time.Until(until); {
		case o.kind == opRead || !matches(f.Files, o.file):
		case f.For == 0:
			<-healed
		case wait > 0:
			pause(wait, healed)
		}
		return nil
	}, nil
}

// Slow makes each sync take that long.
type Slow struct{ Sync time.Duration }

func (f Slow) inflict(*Disk) (hook, error) {
	return func(o *op, healed <-chan struct{}) error {
		if o.kind == opSync {
			pause(f.Sync, healed)
		}
		return nil
	}, nil
}

func pause(d time.Duration, healed <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-healed:
	}
}

// PowerOff lets After more writes, syncs and changes of folders through and
// none afterwards, so that a PowerLoss finds the disk as it was at that moment
// however long after it comes.
type PowerOff struct{ After int }

func (f PowerOff) inflict(d *Disk) (hook, error) {
	left := f.After
	return func(o *op, _ <-chan struct{}) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if o.kind == opRead {
			return nil
		}
		if left--; left < 0 {
			o.size = 0
			return syscall.EIO
		}
		return nil
	}, nil
}

// Flip turns bits of a file over, one in each of Bytes bytes (0 = 1) from At
// on. At counts from the start of the file, or from its end if it is below 0.
type Flip struct {
	Files string
	At    int64
	Bytes int
}

func (f Flip) inflict(d *Disk) (hook, error) {
	name, data, err := d.victim(f.Files)
	if err != nil {
		return nil, err
	}
	at := f.At
	if at < 0 {
		at += int64(len(data))
	}
	n := max(f.Bytes, 1)
	if at < 0 || at+int64(n) > int64(len(data)) {
		return nil, fmt.Errorf("simdisk: %s has %d bytes: none to flip at %d", name, len(data), f.At)
	}
	for i := range n {
		data[at+int64(i)] ^= 1 << d.chance(8)
	}
	return nil, d.patch(name, at, data[at:at+int64(n)])
}

// Truncate takes the last By bytes from a file that nobody has open.
type Truncate struct {
	Files string
	By    int
}

func (f Truncate) inflict(d *Disk) (hook, error) {
	name, data, err := d.victim(f.Files)
	if err != nil {
		return nil, err
	}
	return nil, d.replace(name, data[:max(0, len(data)-f.By)])
}

// Tear leaves a part of the last write to a file that nobody has open: its
// beginning. The rest is gone if it was the file's end, and else zero.
type Tear struct{ Files string }

func (f Tear) inflict(d *Disk) (hook, error) {
	name, data, err := d.victim(f.Files)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	w := d.last[name]
	d.mu.Unlock()
	w.to = min(w.to, int64(len(data)))
	if w.from >= w.to {
		return nil, fmt.Errorf("simdisk: nothing is left of the last write to %s", name)
	}
	cut := w.from
	if w.to-w.from > 1 {
		cut += 1 + int64(d.chance(int(w.to-w.from-1)))
	}
	if w.to == int64(len(data)) {
		return nil, d.replace(name, data[:cut])
	}
	return nil, d.patch(name, cut, make([]byte, w.to-cut))
}
