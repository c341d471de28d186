// Package mesh is who is alive and the streams between them.
//
// A node has one UDP socket. Clients (ALPN im/1), the links between nodes
// (mesh/1) and gossip share it; whoever replaces that one net.PacketConn holds
// the whole network of a node in their hand.
//
// It promises:
//   - one link, a QUIC connection with mutual TLS, per pair of nodes; it is
//     dialled again for as long as the other node is believed to exist
//   - whoever is at the other end of a stream proved with a certificate of the
//     cluster to be the node that it is said to be; anybody else is refused
//     before it sees any data, with an error that has a name
//   - a View that never changes: another one replaces it
//   - what gossip says is advice: late and sometimes wrong, never a decision
package mesh
