package mesh

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/quic-go/quic-go"

	"github.com/starling-im/starling/identity"
)

// Why a peer or a stream was refused. Both ends learn it where TLS tells both.
var (
	// ErrNoCertificate refuses a peer that shows no certificate.
	ErrNoCertificate = errors.New("mesh: no certificate")
	// ErrForeignCertificate refuses a certificate that the cluster's CA did not sign.
	ErrForeignCertificate = errors.New("mesh: certificate of an unknown CA")
	// ErrExpired refuses a certificate that is not valid any more.
	ErrExpired = errors.New("mesh: expired certificate")
	// ErrNotNode refuses a certificate that names no node, such as a client's.
	ErrNotNode = identity.ErrNotNode
	// ErrOtherCluster refuses a node of another cluster.
	ErrOtherCluster = identity.ErrOtherCluster
	// ErrOtherRegion refuses a node that another region's authority signed.
	ErrOtherRegion = identity.ErrOtherRegion
	// ErrRevoked refuses a node whose certificate is good for nothing any more.
	ErrRevoked = errors.New("mesh: revoked node")
	// ErrNotMember refuses a node that the cluster does not know, or not any more.
	ErrNotMember = errors.New("mesh: no node of this cluster, or not any more")
	// ErrOtherKey refuses a node that has the id of another, but not its key.
	ErrOtherKey = errors.New("mesh: the id of another node")
	// ErrForged refuses what is said of a node by somebody else in its name.
	ErrForged = errors.New("mesh: forged origin")
	// ErrOtherNode says that another node answered than the one that was dialled.
	ErrOtherNode = errors.New("mesh: another node than expected")
	// ErrSameNode refuses a peer with this node's own id.
	ErrSameNode = errors.New("mesh: the id of this node")
	// ErrNotDialler refuses a link from the node that has to wait for one.
	ErrNotDialler = errors.New("mesh: link dialled by the wrong side")
	// ErrRefused says that the peer refused this node's certificate, and no more.
	ErrRefused = errors.New("mesh: certificate refused")
	// ErrGossipKey refuses gossip that is encrypted with another key.
	ErrGossipKey = errors.New("mesh: gossip with another key")

	// ErrNoLink says that there was no link to the node before the context ended.
	ErrNoLink = errors.New("mesh: no link")
	// ErrNoWay says that a node can be reached neither by itself nor over another.
	ErrNoWay = errors.New("mesh: no way to the node")
	// ErrUnknownKind says that the peer does not serve streams of this kind.
	ErrUnknownKind = errors.New("mesh: unknown stream kind")
	// ErrNewerVersion says that a format is newer than its reader.
	ErrNewerVersion = errors.New("mesh: format of a newer version")
	// ErrBadName says that a name cannot be part of a certificate.
	ErrBadName = identity.ErrBadName
)

// Codes that reset a stream.
const (
	resetClosed quic.StreamErrorCode = iota
	resetUnknownKind
	resetNewerVersion
	resetHeader
)

// Codes that close a connection between nodes, besides those of package wire.
const (
	closeReplaced    quic.ApplicationErrorCode = 4000
	closeMoved       quic.ApplicationErrorCode = 4001
	closeNotDialler  quic.ApplicationErrorCode = 4002
	closeNotAdmitted quic.ApplicationErrorCode = 4003
)

// TLS alerts (RFC 8446 §6.2) as QUIC reports them.
const (
	alertBadCertificate      quic.TransportErrorCode = 0x100 + 42
	alertExpired             quic.TransportErrorCode = 0x100 + 45
	alertUnknownCA           quic.TransportErrorCode = 0x100 + 48
	alertCertificateRequired quic.TransportErrorCode = 0x100 + 116
)

// refusal adds to the error of a connection the name of the refusal behind it,
// if it was one.
func refusal(err error) error {
	var transport *quic.TransportError
	var app *quic.ApplicationError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name error
	switch {
	case errors.As(err, &authority):
		name = ErrForeignCertificate
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		name = ErrExpired
	case errors.As(err, &app):
		switch {
		case app.Remote && app.ErrorCode == closeNotDialler:
			name = ErrNotDialler
		case app.Remote && app.ErrorCode == closeNotAdmitted:
			name = ErrRefused
		}
	case errors.As(err, &transport):
		switch transport.ErrorCode {
		case alertCertificateRequired:
			name = ErrNoCertificate
		case alertExpired:
			name = ErrExpired
		case alertUnknownCA:
			name = ErrForeignCertificate
		case alertBadCertificate:
			if transport.Remote {
				name = ErrRefused
			}
		}
	}
	if name == nil {
		return err
	}
	return fmt.Errorf("%w: %w", name, err)
}

// isRefusal reports whether err is somebody's doing, not just the network's.
func isRefusal(err error) bool {
	for _, e := range []error{
		ErrNoCertificate, ErrForeignCertificate, ErrExpired, ErrNotNode, ErrOtherCluster,
		ErrOtherNode, ErrSameNode, ErrNotDialler, ErrRefused, ErrGossipKey,
		ErrOtherRegion, ErrRevoked, ErrNotMember, ErrOtherKey, ErrForged,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// streamError gives the resets of the peer their names.
func streamError(err error) error {
	var reset *quic.StreamError
	if err == nil || !errors.As(err, &reset) || !reset.Remote {
		return err
	}
	switch reset.ErrorCode {
	case resetUnknownKind:
		return fmt.Errorf("%w: %w", ErrUnknownKind, err)
	case resetNewerVersion:
		return fmt.Errorf("%w: %w", ErrNewerVersion, err)
	}
	return err
}
