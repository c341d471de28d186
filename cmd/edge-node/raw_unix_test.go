//go:build unix

package main

import "syscall"

// takeLittle bounds what a socket takes in without being read.
func takeLittle(fd uintptr, bytes int) error {
	return syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, bytes)
}
