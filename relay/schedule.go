package relay

// schedule is a heap of rooms by when they are to be flushed.
type schedule []*gathering

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, k int) bool { return s[i].at.Before(s[k].at) }
func (s schedule) Swap(i, k int) {
	s[i], s[k] = s[k], s[i]
	s[i].index, s[k].index = i, k
}

// Push and Pop implement heap.Interface.
func (s *schedule) Push(g any) {
	g.(*gathering).index = len(*s)
	*s = append(*s, g.(*gathering))
}

func (s *schedule) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}
