package consensus

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/klauspost/compress/zstd"

	"github.com/starling-im/starling/wire"
)

// A snapshot file is one zstd stream: a version byte, the applied position
// with its length before it, the group's records (1, key, value, each with its
// length), and 0 with the number of records.
const exportVersion = 1

const (
	exportWindow = 1 << 20 // of zstd, in bytes
	// exportRecord bounds a key or a value while importing.
	exportRecord = wire.NodeFrame
)

// export writes the group's data of this moment to a file.
func (t *snapshotStore) export(name string) (err error) {
	snap := t.s.db.NewSnapshot()
	defer snap.Close()
	f, err := t.h.cfg.FS.Create(t.path(name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return t.s.fail(err)
	}
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(exportWindow))
	if err == nil {
		err = t.exportTo(z, snap)
		err = errors.Join(err, z.Close())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = t.h.cfg.FS.Remove(t.path(name))
		if t.h.ctx.Err() != nil {
			return err
		}
		return t.s.fail(err)
	}
	return nil
}

func (t *snapshotStore) exportTo(z io.Writer, snap *pebble.Snapshot) error {
	w := bufio.NewWriterSize(z, 64<<10)
	pos, closer, err := snap.Get(key(tableMeta, t.group, positionKey))
	if err != nil {
		return fmt.Errorf("export of group %d: applied position: %w", t.group, err)
	}
	buf := appendBytes([]byte{exportVersion}, pos)
	if err := closer.Close(); err != nil {
		return err
	}
	if _, err := w.Write(buf); err != nil {
		return err
	}
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: key(tableData, t.group, ""), UpperBound: tableEnd(tableData, t.group)})
	if err != nil {
		return err
	}
	defer it.Close()
	count := uint64(0)
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		buf = appendBytes(append(buf[:0], 1), it.Key()[5:])
		buf = binary.AppendUvarint(buf, uint64(len(value)))
		if _, err := w.Write(buf); err != nil {
			return err
		}
		if _, err := w.Write(value); err != nil {
			return err
		}
		count++
		if t.h.ctx.Err() != nil {
			return t.h.ctx.Err()
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	if _, err := w.Write(binary.AppendUvarint([]byte{0}, count)); err != nil {
		return err
	}
	return w.Flush()
}

// verify reads a file to its end.
func (t *snapshotStore) verify(name string) error {
	_, err := t.readFile(name, func(_, _ []byte) error { return nil })
	return err
}

// importFile replaces the group's data by that of a file, in bounded batches
// that need no sync: the caller's last write is synced.
func (t *snapshotStore) importFile(name string) (position, error) {
	b := t.s.db.NewBatch()
	if err := b.DeleteRange(key(tableData, t.group, ""), tableEnd(tableData, t.group), nil); err != nil {
		return position{}, err
	}
	prefix, unflushed := key(tableData, t.group, ""), 0
	pos, err := t.readFile(name, func(k, v []byte) error {
		if err := b.Set(append(prefix[:5:5], k...), v, nil); err != nil {
			return err
		}
		if b.Len() < importBytes {
			return nil
		}
		full := b
		unflushed += full.Len()
		b = t.s.db.NewBatch()
		if err := t.s.commit(full, pebble.NoSync); err != nil || unflushed < importFlush {
			return err
		}
		unflushed = 0
		return t.s.try(t.s.db.Flush)
	})
	if err != nil {
		return pos, err
	}
	return pos, t.s.commit(b, pebble.NoSync)
}

// readFile calls fn for every record of a file, and returns an error unless
// the file is whole.
func (t *snapshotStore) readFile(name string, fn func(k, v []byte) error) (position, error) {
	f, err := t.h.cfg.FS.Open(t.path(name))
	if err != nil {
		return position{}, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(wire.ZstdWindow), zstd.WithDecoderMaxMemory(wire.ZstdWindow))
	if err != nil {
		return position{}, err
	}
	defer z.Close()
	return readExport(bufio.NewReaderSize(z, 64<<10), fn)
}

func readExport(r *bufio.Reader, fn func(k, v []byte) error) (position, error) {
	version, err := r.ReadByte()
	if err != nil {
		return position{}, cut(err)
	}
	if version != exportVersion {
		return position{}, newer("snapshot", version, exportVersion)
	}
	var k, v []byte
	if v, err = readBytes(r, v); err != nil {
		return position{}, err
	}
	pos, err := decodePosition(v)
	if err != nil {
		return pos, err
	}
	for count := uint64(0); ; count++ {
		more, err := r.ReadByte()
		if err != nil {
			return pos, cut(err)
		}
		if more == 0 {
			return pos, readEnd(r, count)
		}
		if k, err = readBytes(r, k); err != nil {
			return pos, err
		}
		if v, err = readBytes(r, v); err != nil {
			return pos, err
		}
		if err := fn(k, v); err != nil {
			return pos, err
		}
	}
}

// readEnd checks that the file ends as it says; the read at the end of the
// stream also checks its checksum.
func readEnd(r *bufio.Reader, count uint64) error {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return cut(err)
	}
	if n != count {
		return fmt.Errorf("snapshot of %d records has %d", n, count)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.Join(errors.New("snapshot does not end where it should"), err)
	}
	return nil
}

// readBytes reads a length and that many bytes, into buf if it is large enough.
func readBytes(r *bufio.Reader, buf []byte) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, cut(err)
	}
	if n > exportRecord {
		return nil, wire.TooLarge("record of a snapshot", n, exportRecord)
	}
	if uint64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err = io.ReadFull(r, buf)
	return buf, cut(err)
}

// cut names the end of a file that comes too early.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
