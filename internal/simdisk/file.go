package simdisk

import (
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// file is an open file of a disk.
type file struct {
	vfs.File
	d    *Disk
	name string
	pos  int64 // of the next Write
}

func (f *file) Read(p []byte) (int, error) {
	if err := f.d.meet(&op{kind: opRead, file: f.name}); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (f *file) ReadAt(p []byte, at int64) (int, error) {
	if err := f.d.meet(&op{kind: opRead, file: f.name}); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, at)
}

func (f *file) Write(p []byte) (int, error) {
	n, err := f.write(p, f.pos, f.File.Write)
	f.pos += int64(n)
	return n, err
}

func (f *file) WriteAt(p []byte, at int64) (int, error) {
	return f.write(p, at, func(p []byte) (int, error) { return f.File.WriteAt(p, at) })
}

// write writes as much as the faults leave of p.
func (f *file) write(p []byte, at int64, write func([]byte) (int, error)) (n int, err error) {
	o := op{kind: opWrite, file: f.name, size: len(p)}
	failed := f.d.meet(&o)
	if failed != nil && o.size == len(p) {
		o.size = 0
	}
	if o.size > 0 || failed == nil {
		n, err = write(p[:o.size])
		f.d.wrote(f.name, at, at+int64(n))
	}
	if failed != nil {
		err = failed
	}
	return n, err
}

func (f *file) Sync() error {
	if err := f.d.meet(&op{kind: opSync, file: f.name}); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *file) SyncData() error { return f.Sync() }

// SyncTo may do nothing, which is what it does.
func (f *file) SyncTo(int64) (bool, error) { return false, nil }

func (d *Disk) opened(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &file{File: f, d: d, name: name}, nil
}

func (d *Disk) change(name string) error { return d.meet(&op{kind: opChange, file: name}) }

// Create implements vfs.FS.
func (d *Disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.change(name); err != nil {
		return nil, err
	}
	f, err := d.mem.Create(name, c)
	return d.opened(name, f, err)
}

// Open implements vfs.FS.
func (d *Disk) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	inner, err := d.mem.Open(name)
	f, err := d.opened(name, inner, err)
	if err != nil {
		return nil, err
	}
	for _, o := range opts {
		o.Apply(f)
	}
	return f, nil
}

// OpenReadWrite implements vfs.FS.
func (d *Disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := d.change(name); err != nil {
		return nil, err
	}
	inner, err := d.mem.OpenReadWrite(name, c)
	f, err := d.opened(name, inner, err)
	if err != nil {
		return nil, err
	}
	for _, o := range opts {
		o.Apply(f)
	}
	return f, nil
}

// OpenDir implements vfs.FS.
func (d *Disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.mem.OpenDir(name)
	return d.opened(name, f, err)
}

// ReuseForWrite implements vfs.FS.
func (d *Disk) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.change(from); err != nil {
		return nil, err
	}
	f, err := d.mem.ReuseForWrite(from, to, c)
	if err == nil {
		d.moved(from, to)
	}
	return d.opened(to, f, err)
}

// Rename implements vfs.FS.
func (d *Disk) Rename(from, to string) error {
	if err := d.change(from); err != nil {
		return err
	}
	if err := d.mem.Rename(from, to); err != nil {
		return err
	}
	d.moved(from, to)
	return nil
}

// Link implements vfs.FS.
func (d *Disk) Link(from, to string) error {
	if err := d.change(from); err != nil {
		return err
	}
	return d.mem.Link(from, to)
}

// Remove implements vfs.FS.
func (d *Disk) Remove(name string) error {
	if err := d.change(name); err != nil {
		return err
	}
	return d.mem.Remove(name)
}

// RemoveAll implements vfs.FS.
func (d *Disk) RemoveAll(name string) error {
	if err := d.change(name); err != nil {
		return err
	}
	return d.mem.RemoveAll(name)
}

// MkdirAll implements vfs.FS.
func (d *Disk) MkdirAll(name string, perm os.FileMode) error {
	if err := d.change(name); err != nil {
		return err
	}
	return d.mem.MkdirAll(name, perm)
}

// Unwrap implements vfs.FS: nothing lies below.
func (d *Disk) Unwrap() vfs.FS { return nil }

func (d *Disk) chance(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rand.IntN(n)
}

// victim reads the file that a damage is for.
func (d *Disk) victim(pattern string) (name string, data []byte, err error) {
	name, size := d.newest(pattern)
	if name == "" {
		return "", nil, fmt.Errorf("simdisk: no file %q has anything in it", pattern)
	}
	f, err := d.mem.Open(name)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	data = make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if err == io.EOF {
		err = nil
	}
	return name, data[:n], err
}

// patch changes bytes of a file for all who have it open, and for good.
func (d *Disk) patch(name string, at int64, p []byte) error {
	f, err := d.mem.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(p, at); err != nil {
		return err
	}
	return f.Sync()
}

// replace puts a file in the place of another, for good.
func (d *Disk) replace(name string, data []byte) error {
	f, err := d.mem.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	dir, err := d.mem.OpenDir(d.mem.PathDir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
