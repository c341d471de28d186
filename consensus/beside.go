package consensus

import (
	"errors"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// besideLog is the disk of the database. Whenever the database syncs its log, the
// tips are synced at the same time: so there are as many syncs of the tips as
// of the log, both serve the same writes, and nobody waits for a second one.
type besideLog struct {
	vfs.FS
	guard atomic.Pointer[guard]
}

// Unwrap returns the disk below.
func (d *besideLog) Unwrap() vfs.FS { return d.FS }

// Create creates a file.
func (d *besideLog) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.Create(name, category)
	return d.wrap(name, f), err
}

// ReuseForWrite creates a file in the place of another.
func (d *besideLog) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(old, name, category)
	return d.wrap(name, f), err
}

func (d *besideLog) wrap(name string, f vfs.File) vfs.File {
	if f == nil || !strings.HasSuffix(name, ".log") {
		return f
	}
	return logFile{f, d}
}

// logFile is a file of the database's log.
type logFile struct {
	vfs.File
	disk *besideLog
}

// Sync syncs the file and the tips.
func (f logFile) Sync() error { return f.with(f.File.Sync) }

// SyncData syncs the file's data and the tips.
func (f logFile) SyncData() error { return f.with(f.File.SyncData) }

// with syncs the tips meanwhile: whatever is in the log by now was claimed before.
func (f logFile) with(sync func() error) error {
	g := f.disk.guard.Load()
	if g == nil || !g.waits() {
		return sync()
	}
	tips := make(chan error, 1)
	go func() { tips <- g.flush() }()
	err := sync()
	return errors.Join(err, <-tips)
}
