package wire

import "testing"

// TestCounter counts frames, an empty one among them, however they are cut.
func TestCounter(t *testing.T) {
	var stream []byte
	for range 5 {
		stream = AppendMessage(stream, &Frame{Id: 7, Body: &Frame_Answer{Answer: &Answer{Json: make([]byte, 300)}}})
		stream = AppendMessage(stream, &Frame{})
	}
	for _, size := range []int{1, 2, 5, 6, 7, 100, len(stream)} {
		var c Counter
		frames := 0
		for at := 0; at < len(stream); at += size {
			frames += c.Count(stream[at:min(at+size, len(stream))])
		}
		if frames != 10 {
			t.Errorf("%d bytes at a time: %d frames, not 10", size, frames)
		}
	}
}
