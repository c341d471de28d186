package wire

// Close codes end a connection (QUIC application error, WebSocket close code).
// Below CloseFinal the client comes back, with its cursors and with jitter; from
// there on it does not, because the same attempt would end the same way.
const (
	CloseNormal          = 3000
	CloseShuttingDown    = 3001
	CloseSlowReader      = 3002
	CloseTokenExpired    = 3003
	CloseOverloaded      = 3004
	CloseInternal        = 3005
	CloseIdle            = 3006
	CloseConflict        = 3007
	CloseFinal           = 3500
	CloseUnauthenticated = 3500
	CloseProtocol        = 3501
	CloseForbidden       = 3502
)

var closeCodes = map[string]uint64{
	CodeShuttingDown: CloseShuttingDown, CodeSlowReader: CloseSlowReader,
	CodeTokenExpired: CloseTokenExpired, CodeOverloaded: CloseOverloaded, CodeTooMany: CloseOverloaded,
	CodeUnauthenticated: CloseUnauthenticated, CodeForbidden: CloseForbidden,
	CodeProtocol: CloseProtocol, CodeTooLarge: CloseProtocol, CodeBadRequest: CloseProtocol,
	CodeUnsupported: CloseProtocol, CodeConflict: CloseConflict,
}

// CloseCode returns the close code for an error that ends a connection.
func CloseCode(err error) uint64 {
	if c, ok := closeCodes[Code(err)]; ok {
		return c
	}
	return CloseInternal
}

// Reconnect reports whether a client should come back after this close code.
func Reconnect(code uint64) bool { return code < CloseFinal }
