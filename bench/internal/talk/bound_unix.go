//go:build unix

package talk

import "syscall"

// bound bounds a socket's buffer for what comes in.
func bound(fd uintptr, bytes int) error {
	return syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, bytes)
}
