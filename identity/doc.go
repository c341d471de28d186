// Package identity says who belongs to a cluster. A cluster has a root, whose key
// its operator keeps offline; for each region an authority under the root, which
// signs the certificates of the region's nodes; and tokens, each of which lets one
// new node in.
//
// It promises that a name which Verify returns was given to that key by the
// authority of the region that is in it, and that no authority can sign for another
// region than its own.
package identity
