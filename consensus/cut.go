package consensus

// sizes are the encoded sizes of consecutive entries, in bytes.
type sizes struct {
	each []uint32
	all  uint64
}

func (s *sizes) add(size int) {
	s.each = append(s.each, uint32(size))
	s.all += uint64(size)
}

func (s *sizes) dropFirst(n int) {
	s.all -= sum(s.each[:n])
	s.each = s.each[n:]
}

func (s *sizes) dropLast(n int) {
	n = len(s.each) - n
	s.all -= sum(s.each[n:])
	s.each = s.each[:n]
}

func sum(each []uint32) (all uint64) {
	for _, size := range each {
		all += uint64(size)
	}
	return all
}

// cutLog takes a snapshot where the entries since the last one have become too
// large; Raft itself counts entries only.
func (g *group) cutLog() {
	g.snaps.mu.Lock()
	covered := g.snaps.meta.Index
	g.snaps.mu.Unlock()
	if g.logs.bytesAfter(covered) <= g.h.cfg.SnapshotBytes || g.fsm.position().index <= covered || g.h.s.stall.stalled() {
		return
	}
	g.instance().Snapshot() // an error shows in the log's size
}

// bytesAfter returns the size of the entries after an index.
func (l *logStore) bytesAfter(index uint64) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	switch {
	case index >= l.last:
		return 0
	case l.first == 0 || index < l.first:
		return l.sizes.all
	}
	return sum(l.sizes.each[index+1-l.first:])
}

// trim removes entries that the snapshot at an index covers, until no more than
// keep bytes of log are left.
func (l *logStore) trim(covered, keep uint64) error {
	l.mu.RLock()
	first, upTo, left := l.first, l.first, l.sizes.all
	for _, size := range l.sizes.each {
		if left <= keep || upTo > covered {
			break
		}
		left -= uint64(size)
		upTo++
	}
	l.mu.RUnlock()
	if upTo == first {
		return nil
	}
	return l.DeleteRange(first, upTo-1)
}
