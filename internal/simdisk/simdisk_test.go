package simdisk

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const category = vfs.WriteCategoryUnspecified

// newFile opens a file that is there for good.
func newFile(t *testing.T, d *Disk, name string) vfs.File {
	t.Helper()
	f, err := d.Create(name, category)
	ok(t, err)
	dir, err := d.OpenDir("")
	ok(t, err)
	ok(t, dir.Sync())
	return f
}

func put(t *testing.T, f vfs.File, text string) {
	t.Helper()
	if n, err := f.Write([]byte(text)); err != nil || n != len(text) {
		t.Fatalf("%d of %d bytes written: %v", n, len(text), err)
	}
}

// content reads a file; "?" if it is not there.
func content(t *testing.T, d *Disk, name string) string {
	t.Helper()
	f, err := d.Open(name)
	if err != nil {
		return "?"
	}
	b, err := io.ReadAll(f)
	ok(t, err)
	ok(t, f.Close())
	return string(b)
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPowerLossKeepsWhatWasSynced(t *testing.T) {
	d := New(1)
	f := newFile(t, d, "a.log")
	put(t, f, "synced")
	ok(t, f.Sync())
	put(t, f, " and not")
	_, err := d.Create("b.log", category)
	ok(t, err)
	copied := d.Copy()
	left := d.PowerLoss(0)
	put(t, f, ", and later")
	for _, x := range []struct{ name, got, want string }{
		{"synced", content(t, left, "a.log"), "synced"},
		{"a name that was not", content(t, left, "b.log"), "?"},
		{"the copy", content(t, copied, "a.log"), "synced and not"},
		{"the copy's names", content(t, copied, "b.log"), ""},
		{"the old disk", content(t, d, "a.log"), "synced and not, and later"},
	} {
		if x.got != x.want {
			t.Errorf("%s: %q, want %q", x.name, x.got, x.want)
		}
	}
}

// A chance to be kept means that some of it is, and the same for one seed.
func TestPowerLossKeepsAPart(t *testing.T) {
	kept := func(seed uint64) (n int) {
		d := New(seed)
		f := newFile(t, d, "a.log")
		for range 100 {
			put(t, f, string(make([]byte, 4096)))
		}
		return len(content(t, d.PowerLoss(3), "a.log")) / 4096
	}
	differ := false
	for seed := range uint64(10) {
		a, b := kept(seed), kept(seed)
		if a != b {
			t.Errorf("seed %d: %d blocks, then %d", seed, a, b)
		}
		differ = differ || a != kept(0)
	}
	if !differ {
		t.Error("the seed makes no difference")
	}
}

// Errors end what they are for, leave alone what they are not, and are over
// after Heal.
func TestErrors(t *testing.T) {
	for _, x := range []struct {
		fault             Fault
		write, sync, read error
	}{
		{Full{}, syscall.ENOSPC, nil, nil},
		{Full{After: 4}, nil, nil, nil},
		{FailSync{}, nil, syscall.EIO, nil},
		{FailSync{Files: "*.log"}, nil, syscall.EIO, nil},
		{FailSync{Files: "*.sst"}, nil, nil, nil},
		{FailRead{}, nil, nil, syscall.EIO},
		{PowerOff{}, syscall.EIO, syscall.EIO, nil},
		{PowerOff{After: 1}, nil, syscall.EIO, nil},
		{PowerOff{After: 2}, nil, nil, nil},
	} {
		d := New(1)
		f := newFile(t, d, "a.log")
		put(t, f, "before")
		ok(t, d.Inflict(x.fault))
		_, write := f.Write([]byte("more"))
		sync := f.Sync()
		_, read := f.ReadAt(make([]byte, 1), 0)
		if !errors.Is(write, x.write) || !errors.Is(sync, x.sync) || !errors.Is(read, x.read) {
			t.Errorf("%T%+v: write %v, sync %v, read %v", x.fault, x.fault, write, sync, read)
		}
		d.Heal()
		put(t, f, ".")
		ok(t, f.Sync())
	}
}

func TestFullWritesAPart(t *testing.T) {
	d := New(1)
	f := newFile(t, d, "a.log")
	ok(t, d.Inflict(Full{After: 5}))
	put(t, f, "abc")
	if n, err := f.Write([]byte("defg")); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if got := content(t, d, "a.log"); got != "abcde" {
		t.Errorf("%q is there", got)
	}
}

func TestTime(t *testing.T) {
	for _, x := range []struct {
		fault       Fault
		heal        time.Duration // 0 = never
		write, sync time.Duration // since the fault
	}{
		{Stall{For: 3 * time.Second}, 0, 3 * time.Second, 3 * time.Second},
		{Stall{}, time.Hour, time.Hour, time.Hour},
		{Stall{For: time.Minute}, time.Second, time.Second, time.Second},
		{Stall{Files: "*.sst"}, 0, 0, 0},
		{Slow{Sync: time.Second}, 0, 0, time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := New(1)
			f := newFile(t, d, "a.log")
			began := time.Now()
			ok(t, d.Inflict(x.fault))
			if x.heal > 0 {
				time.AfterFunc(x.heal, d.Heal)
			}
			put(t, f, "x")
			write := time.Since(began)
			ok(t, f.Sync())
			if sync := time.Since(began); write != x.write || sync != x.sync {
				t.Errorf("%T%+v: written after %v, synced after %v", x.fault, x.fault, write, sync)
			}
		})
	}
}

func TestDamage(t *testing.T) {
	for _, x := range []struct {
		fault Fault
		want  string // what stays as it was; "~" = anything else
		err   bool
	}{
		{Flip{Files: "*.log", At: 1}, "a~cdefghi", false},
		{Flip{Files: "*.log", At: -2, Bytes: 2}, "abcdefg~~", false},
		{Flip{Files: "*.log", At: 8, Bytes: 2}, "", true},
		{Truncate{Files: "*.log", By: 4}, "abcde", false},
		{Truncate{Files: "*.log", By: 40}, "", false},
		{Truncate{Files: "*.sst"}, "", true},
		{Tear{Files: "*.log"}, "abcd", false},
	} {
		d := New(4)
		other := newFile(t, d, "0.log")
		f := newFile(t, d, "1.log")
		put(t, other, "other")
		put(t, f, "abc")
		put(t, f, "defghi")
		ok(t, f.Sync())
		if err := d.Inflict(x.fault); (err != nil) != x.err {
			t.Errorf("%T%+v: %v", x.fault, x.fault, err)
		}
		if x.err {
			continue
		}
		got := content(t, d.PowerLoss(0), "1.log") // damage needs no sync
		same := len(got) == len(x.want)
		for i := 0; same && i < len(got); i++ {
			same = (x.want[i] == '~') == (got[i] != "abcdefghi"[i])
		}
		if !same || content(t, d, "0.log") != "other" {
			t.Errorf("%T%+v: %q, want %q", x.fault, x.fault, got, x.want)
		}
	}
}

// Pebble on such a disk keeps what it synced, at whichever write the power
// goes, and never opens on a table that was damaged without saying so.
func TestPebble(t *testing.T) {
	open := func(d *Disk) *pebble.DB {
		db, err := pebble.Open("db", &pebble.Options{FS: d, FormatMajorVersion: pebble.FormatNewest, Logger: silent{}})
		ok(t, err)
		return db
	}
	for after := range 40 {
		d := New(uint64(after))
		db := open(d)
		ok(t, d.Inflict(PowerOff{After: 5 * after}))
		synced := fill(db)
		d = d.PowerLoss(0)
		_ = db.Close()
		db = open(d)
		for i := range synced {
			if _, closer, err := db.Get(fmt.Appendf(nil, "%06d", i)); err != nil {
				t.Errorf("after %d writes: key %d of %d: %v", 5*after, i, synced, err)
			} else {
				ok(t, closer.Close())
			}
		}
		ok(t, db.Close())
	}
}

// fill writes until the first error and returns how many keys were synced.
func fill(db *pebble.DB) (synced int) {
	defer func() { _ = recover() }() // Pebble gives up on a log that fails
	for synced < 100 && db.Set(fmt.Appendf(nil, "%06d", synced), make([]byte, 100), pebble.Sync) == nil {
		synced++
	}
	return synced
}

// silent ends whoever calls Fatalf, as Pebble wants it.
type silent struct{}

func (silent) Infof(string, ...interface{})              {}
func (silent) Errorf(string, ...interface{})             {}
func (silent) Fatalf(format string, args ...interface{}) { panic(fmt.Sprintf(format, args...)) }
