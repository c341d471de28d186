package mesh

import (
	"log/slog"
	"net"
	"syscall"
)

// wantBuffer is the socket buffer in bytes that QUIC asks for.
const wantBuffer = 7 << 20

// hintBuffers tells how to let the kernel give the socket the buffers that
// QUIC asked for, if it gave less: under load, packets are lost without them.
func hintBuffers(conn net.PacketConn, log *slog.Logger) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	receive, send := wantBuffer, wantBuffer
	_ = raw.Control(func(fd uintptr) {
		receive, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
		send, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
	})
	if receive < wantBuffer || send < wantBuffer {
		log.Info("small socket buffers: packets may be lost under load",
			"receive_kib", receive>>10, "send_kib", send>>10, "want_kib", wantBuffer>>10,
			"remedy", "sysctl -w net.core.rmem_max=7500000 net.core.wmem_max=7500000")
	}
}
