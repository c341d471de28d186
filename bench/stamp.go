package main

import (
	"errors"
	"time"
)

// A stamp begins each message: which one of which room it is, and when it was
// sent, since the crowd began. It is text, as what people say is.
type stamp struct {
	room   int
	number uint64
	sent   time.Duration
}

// The digits of a stamp, six bits each.
const (
	roomDigits   = 3
	numberDigits = 6
	sentDigits   = 9
	stampBytes   = roomDigits + numberDigits + sentDigits
	firstDigit   = '0'
)

var errStamp = errors.New("a message is not what was sent")

// write returns a message of a size, or of the stamp's if that is larger.
func (s stamp) write(size int) []byte {
	b := make([]byte, max(size, stampBytes))
	for i := stampBytes; i < len(b); i++ {
		b[i] = 'a' + byte(i%26)
	}
	writeDigits(b[:roomDigits], uint64(s.room))
	writeDigits(b[roomDigits:roomDigits+numberDigits], s.number)
	writeDigits(b[roomDigits+numberDigits:stampBytes], uint64(s.sent))
	return b
}

func writeDigits(b []byte, v uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = firstDigit + byte(v&63)
		v >>= 6
	}
}

// readStamp reads the stamp of a message.
func readStamp(b []byte) (s stamp, err error) {
	if len(b) < stampBytes {
		return s, errStamp
	}
	for _, digit := range b[:stampBytes] {
		if digit-firstDigit > 63 {
			return s, errStamp
		}
	}
	s.room = int(digits(b[:roomDigits]))
	s.number = digits(b[roomDigits : roomDigits+numberDigits])
	s.sent = time.Duration(digits(b[roomDigits+numberDigits : stampBytes]))
	return s, nil
}

func digits(b []byte) (v uint64) {
	for _, digit := range b {
		v = v<<6 | uint64(digit-firstDigit)
	}
	return v
}
