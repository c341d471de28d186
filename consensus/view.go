package consensus

import (
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/cockroachdb/pebble/v2"
)

// view is a Reader over a Pebble snapshot or an indexed batch.
type view struct {
	s      *store
	r      pebble.Reader
	group  uint32
	prefix []byte    // of the group's data
	buf    []byte    // the key at hand
	closer io.Closer // of the value that Get returned last
}

// stopped is what a view panics with when the storage fails: its users have
// no way to handle that, so the panic leads to the guard around them.
type stopped struct{ err error }

func newView(s *store, r pebble.Reader, group uint32) *view {
	p := key(tableData, group, "")
	return &view{s: s, r: r, group: group, prefix: p, buf: append(make([]byte, 0, 128), p...)}
}

func (v *view) stop(err error) { panic(stopped{v.s.fail(err)}) }

// guard runs fn, which uses v, and returns the storage error that stopped it.
// A machine that must not go on, because of what it finds in the log or in the
// store, panics with an error: that breaks the store too, so that the host
// ends with a reason. Any other panic is a bug and goes on.
func (v *view) guard(fn func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case stopped:
			err = r.err
		case runtime.Error:
			panic(r)
		case error:
			err = v.s.fail(fmt.Errorf("group %d: %w", v.group, r))
		default:
			panic(r)
		}
	}()
	fn()
	return nil
}

func (v *view) key(k []byte) []byte {
	v.buf = append(v.buf[:len(v.prefix)], k...)
	return v.buf
}

// release frees the value that Get returned last.
func (v *view) release() {
	if v.closer != nil {
		if err := v.closer.Close(); err != nil {
			v.stop(err)
		}
		v.closer = nil
	}
}

func (v *view) Get(k []byte) ([]byte, bool) {
	v.release()
	value, closer, err := v.r.Get(v.key(k))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false
	}
	if err != nil {
		v.stop(err)
	}
	v.closer = closer
	return value, true
}

func (v *view) Scan(from, to []byte, fn func(key, value []byte) bool) {
	it := v.iter(from, to)
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			_ = it.Close()
			v.stop(err)
		}
		if !fn(it.Key()[len(v.prefix):], value) {
			break
		}
	}
	if err := it.Close(); err != nil {
		v.stop(err)
	}
}

func (v *view) Last(from, to []byte) ([]byte, bool) {
	it := v.iter(from, to)
	ok := it.Last()
	if ok {
		v.buf = append(v.buf[:len(v.prefix)], it.Key()[len(v.prefix):]...)
	}
	if err := it.Close(); err != nil {
		v.stop(err)
	}
	return v.buf[len(v.prefix):], ok
}

// iter returns an iterator over the group's keys from ≤ key < to.
func (v *view) iter(from, to []byte) *pebble.Iterator {
	v.release()
	o := pebble.IterOptions{LowerBound: append(v.prefix[:len(v.prefix):len(v.prefix)], from...)}
	if to == nil {
		o.UpperBound = tableEnd(tableData, v.group)
	} else {
		o.UpperBound = append(v.prefix[:len(v.prefix):len(v.prefix)], to...)
	}
	it, err := v.r.NewIter(&o)
	if err != nil {
		v.stop(err)
	}
	return it
}

// tx is a view of a batch, and the only writer of it.
type tx struct {
	*view
	b *pebble.Batch
}

func (t *tx) Set(k, value []byte) {
	if err := t.b.Set(t.key(k), value, nil); err != nil {
		t.stop(err)
	}
}

func (t *tx) Delete(k []byte) {
	if err := t.b.Delete(t.key(k), nil); err != nil {
		t.stop(err)
	}
}
