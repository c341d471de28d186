package main

import "testing"

// Clients over WebSocket do what those over QUIC do: they say and follow all that is to be
// said, in order, while a node of theirs dies and comes back.
func TestWebSocketClients(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	m := startMesh(t, home, t.TempDir())
	replayWithKill(t, m, "--transport", "websocket")
	exportAsRecorded(t, home)
	m.stop(t)
}
