package geo

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/serf/coordinate"
)

const (
	// coordinateVersion is the version of the encoding of a Coordinate. A field can
	// be added at the end without raising it: readers ignore what follows what they know.
	coordinateVersion = 1
	// coordinateBytes is the length of an encoded coordinate: the version, eight
	// dimensions, height, adjustment and error.
	coordinateBytes = 1 + 4*(dimensions+3)
	dimensions      = 8
	// coordinateMost bounds each part of a coordinate, in seconds: no way on Earth
	// takes so long, and who says more pulls others away from where they are.
	coordinateMost = 2.0
	// startMost is how far from the origin a node starts, in seconds. The library
	// throws dice where two coordinates are at one point: so they never are.
	startMost = 0.001
)

// ErrCoordinate is returned for bytes that are no coordinate of a node.
var ErrCoordinate = errors.New("geo: no coordinate")

// Coordinate is where a node is in the space of round-trip times: two of them
// estimate the time between nodes that have never measured it (Vivaldi: Dabek
// and others, SIGCOMM 2004; with height and adjustment as in serf). It is a
// value; the zero one is not known.
type Coordinate struct {
	vec                       [dimensions]float64 // seconds, as all but error
	height, adjustment, error float64
}

// Known reports whether this is the coordinate of a node.
func (c Coordinate) Known() bool { return c.height > 0 }

// Error is how wrong estimates with this coordinate are expected to be: a share of
// the round-trip time, from 0 to 1.5, which it is before the first measurement.
func (c Coordinate) Error() float64 { return c.error }

// RTT estimates the round-trip time to another node; 0 if one of them is not known.
func (c Coordinate) RTT(to Coordinate) time.Duration {
	if !c.Known() || !to.Known() {
		return 0
	}
	return c.serf().DistanceTo(to.serf())
}

func (c Coordinate) serf() *coordinate.Coordinate {
	return &coordinate.Coordinate{Vec: c.vec[:], Height: c.height, Adjustment: c.adjustment, Error: c.error}
}

func fromSerf(s *coordinate.Coordinate) Coordinate {
	return Coordinate{vec: [dimensions]float64(s.Vec), height: s.Height, adjustment: s.Adjustment, error: s.Error}
}

// parts are the numbers of a coordinate in the order in which they are encoded.
func (c *Coordinate) parts() (all [dimensions + 3]*float64) {
	for i := range c.vec {
		all[i] = &c.vec[i]
	}
	all[dimensions], all[dimensions+1], all[dimensions+2] = &c.height, &c.adjustment, &c.error
	return all
}

// Encode returns a coordinate in 45 bytes.
func (c Coordinate) Encode() []byte {
	b := make([]byte, 1, coordinateBytes)
	b[0] = coordinateVersion
	for _, part := range c.parts() {
		b = binary.BigEndian.AppendUint32(b, math.Float32bits(float32(*part)))
	}
	return b
}

// DecodeCoordinate returns ErrCoordinate for what Encode does not make of a known
// coordinate, and for numbers that no node can have.
func DecodeCoordinate(b []byte) (Coordinate, error) {
	if len(b) < coordinateBytes || b[0] != coordinateVersion {
		return Coordinate{}, fmt.Errorf("%w: %d bytes, or a version other than %d", ErrCoordinate, len(b), coordinateVersion)
	}
	var c Coordinate
	for i, part := range c.parts() {
		*part = float64(math.Float32frombits(binary.BigEndian.Uint32(b[1+4*i:])))
		if !(math.Abs(*part) <= coordinateMost) { // also what is not a number
			return Coordinate{}, fmt.Errorf("%w: a part of it is %v", ErrCoordinate, *part)
		}
	}
	if c.height <= 0 || c.error < 0 {
		return Coordinate{}, fmt.Errorf("%w: its height is %v and its error %v", ErrCoordinate, c.height, c.error)
	}
	return c, nil
}

// Locator finds out the coordinate of one node, measurement by measurement.
type Locator struct{ client *coordinate.Client }

// NewLocator returns the locator of a node that has measured nothing yet.
func NewLocator(node string) *Locator {
	client, err := coordinate.NewClient(coordinate.DefaultConfig())
	if err != nil {
		panic("geo: " + err.Error()) // only of a configuration without dimensions
	}
	start := client.GetCoordinate()
	sum := sha256.Sum256([]byte(node))
	for i := range start.Vec {
		start.Vec[i] = startMost * (float64(binary.BigEndian.Uint32(sum[4*i:]))/math.MaxUint32 - 0.5)
	}
	if err := client.SetCoordinate(start); err != nil {
		panic("geo: " + err.Error()) // only of other dimensions
	}
	return &Locator{client}
}

// Measured takes a round trip to a peer that is at a coordinate, and returns where
// this node is now. It returns ErrCoordinate, and nothing changes, for a coordinate that
// is not known and for a time that is none.
func (l *Locator) Measured(peer string, at Coordinate, rtt time.Duration) (Coordinate, error) {
	if !at.Known() || rtt <= 0 || rtt.Seconds() > coordinateMost {
		return l.Coordinate(), fmt.Errorf("%w: %s measured at %v", ErrCoordinate, peer, rtt)
	}
	now, err := l.client.Update(peer, at.serf(), rtt)
	if err != nil {
		return l.Coordinate(), fmt.Errorf("%w: %w", ErrCoordinate, err)
	}
	return fromSerf(now), nil
}

// Forget drops what is kept of a peer that is gone: its last three round trips.
func (l *Locator) Forget(peer string) { l.client.ForgetNode(peer) }

// Coordinate is where the node is now.
func (l *Locator) Coordinate() Coordinate { return fromSerf(l.client.GetCoordinate()) }
