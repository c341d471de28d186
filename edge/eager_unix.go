//go:build unix

package edge

import "syscall"

// writeNow writes what a socket takes without waiting.
func writeNow(fd uintptr, p []byte) (int, error) {
	for done := 0; ; {
		n, err := syscall.Write(int(fd), p[done:])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return done, nil
		case err != nil:
			return done, err
		default:
			if done += n; done == len(p) {
				return done, nil
			}
		}
	}
}

// readNow reads what a socket has, EAGAIN if that is nothing.
func readNow(fd uintptr, p []byte) (int, error) {
	for {
		if n, err := syscall.Read(int(fd), p); err != syscall.EINTR {
			return n, err
		}
	}
}
