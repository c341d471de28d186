package replay

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync/atomic"
)

// A Record is one line of a recorded chat.
type Record struct {
	Line   int   // counted from 1
	Millis int64 // when it was said, Unix time; 0 = unknown
	Room   string
	User   string
	Kind   string // message, action, join or leave
	Text   string
}

// A LineError says which line of the file is no record, and why.
type LineError struct {
	File string
	Line int // counted from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s, line %d: %v", e.File, e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// maxLine bounds a line of the file, in bytes: the largest content, escaped.
const maxLine = 256 << 10

// Records reads a file of records, plain or compressed with gzip.
type Records struct {
	file  *os.File
	size  int64
	read  atomic.Int64 // bytes of the file
	lines *bufio.Scanner
	line  int
	raw   rawRecord
}

// rawRecord has the fields of both formats: chats with a time, room and
// sender, and dialogues with a language, source and turn.
type rawRecord struct {
	T    int64  `json:"t"`
	Room string `json:"room"`
	From string `json:"from"`
	Kind string `json:"kind"`
	Text string `json:"text"`
	Lang string `json:"lang"`
	Src  string `json:"src"`
	Turn int    `json:"turn"`
}

// speakers is how many users share the turns of a dialogue.
const speakers = 7

// Open opens a file of records.
func Open(path string) (*Records, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	r := &Records{file: file}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a folder; name a file of records", path)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	r.size = info.Size()
	in := bufio.NewReaderSize(&counted{file, &r.read}, 64<<10)
	var text io.Reader = in
	if magic, _ := in.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("%s is not a whole gzip file: %w", path, err)
		}
		text = z
	}
	r.lines = bufio.NewScanner(text)
	r.lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	return r, nil
}

// Next returns the next record, io.EOF after the last, and a *LineError for a
// line that is none. Empty lines are passed over.
func (r *Records) Next() (Record, error) {
	for r.lines.Scan() {
		r.line++
		if len(r.lines.Bytes()) > 0 {
			return r.parse(r.lines.Bytes())
		}
	}
	err := r.lines.Err()
	switch {
	case err == nil:
		return Record{}, io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("the compressed file is cut short: %w", err)
	case errors.Is(err, bufio.ErrTooLong):
		err = fmt.Errorf("it is longer than %d KiB", maxLine>>10)
	}
	r.line++
	return Record{}, r.wrong(err)
}

// wrong is the error of the line that was read last.
func (r *Records) wrong(err error) error { return &LineError{r.file.Name(), r.line, err} }

func (r *Records) parse(line []byte) (Record, error) {
	r.raw = rawRecord{}
	if err := json.Unmarshal(line, &r.raw); err != nil {
		return Record{}, r.wrong(err)
	}
	raw := &r.raw
	rec := Record{Line: r.line, Millis: raw.T, Room: raw.Room, User: raw.From, Kind: raw.Kind, Text: raw.Text}
	if raw.Lang != "" && raw.Room == "" {
		rec.Room = "lang/" + raw.Lang
		rec.User = raw.Src + "-" + strconv.Itoa(raw.Turn%speakers)
		rec.Kind = "message"
	}
	if rec.Kind == "" {
		rec.Kind = "message"
	}
	if rec.Room == "" || rec.User == "" {
		return Record{}, r.wrong(errors.New("neither room and from, nor lang and src"))
	}
	if _, ok := kinds[rec.Kind]; !ok {
		return Record{}, r.wrong(fmt.Errorf("kind %q is none of message, action, join, leave", rec.Kind))
	}
	return rec, nil
}

// Share returns how much of the file was read, from 0 to 1. It may be called
// while another goroutine reads.
func (r *Records) Share() float64 {
	if r.size == 0 {
		return 0
	}
	return float64(r.read.Load()) / float64(r.size)
}

// Close closes the file.
func (r *Records) Close() error { return r.file.Close() }

// counted counts the bytes that are read.
type counted struct {
	r io.Reader
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
