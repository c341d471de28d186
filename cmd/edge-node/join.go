package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/mesh"
	"github.com/starling-im/starling/wire"
)

// joinOptions are the flags by which run makes a new node.
type joinOptions struct {
	join      string
	token     string
	tokenFile string
	advertise string
}

func (o *joinOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.join, "join", "", "host:port of any node of the cluster that this new node is to join; once it has, this is not looked at")
	f.StringVar(&o.token, "token", "", "join token, see edge-node join-token ($STARLING_TOKEN)")
	f.StringVar(&o.tokenFile, "token-file", "", "file with the join token")
	f.StringVar(&o.advertise, "advertise", "", "host:port at which others reach the new node (default: --listen)")
}

// A refusedError says that a cluster did not let this machine in.
type refusedError struct{ reason error }

func (e *refusedError) Error() string { return "not let in: " + e.reason.Error() }
func (e *refusedError) Unwrap() error { return e.reason }

// secretText is the text of the token: of the flag, the file, or the environment.
func (o *joinOptions) secretText() (string, error) {
	if o.token != "" && o.tokenFile != "" {
		return "", usagef("--token and --token-file are both there: name one")
	}
	if o.tokenFile != "" {
		text, err := os.ReadFile(o.tokenFile)
		return strings.TrimSpace(string(text)), err
	}
	text := cmp.Or(o.token, os.Getenv(envPrefix+"TOKEN"))
	if text == "" {
		return "", usagef("--join needs a token: --token, --token-file or $%sTOKEN; make one with `edge-node join-token create`", envPrefix)
	}
	return text, nil
}

// enroll makes a data folder that of a new node of a cluster. cfg says which node, in
// which region, at which address.
func (a *app) enroll(ctx context.Context, o joinOptions, cfg starling.Config) error {
	text, err := o.secretText()
	if err != nil {
		return err
	}
	switch {
	case !isAddr(o.join):
		return usagef("--join is %q, not host:port", o.join)
	case o.advertise != "" && !isAddr(o.advertise):
		return usagef("--advertise is %q, not host:port", o.advertise)
	}
	token, err := identity.ParseToken(text)
	if err != nil {
		return &refusedError{err}
	}
	if cfg.Region == "" {
		cfg.Region = token.Region
	}
	dir, err := filepath.Abs(cfg.Data)
	if err != nil {
		return err
	}
	draft := newNode(dir, token.Cluster, cmp.Or(cfg.Node, "new"), token.Region, cfg)
	draft.Peers = []starling.Peer{{ID: draft.Node, Region: draft.Region, Addr: cfg.Listen}}
	if err := cmp.Or(draft.Check(), o.reachable(cfg)); err != nil {
		return err // before the token is used up
	}
	if err := free(cfg.Listen); err != nil {
		return err
	}
	key, err := nodeKey(dir)
	if err != nil {
		return err
	}
	csr, err := identity.SigningRequest(key, cfg.Node)
	if err != nil {
		return err
	}
	request, err := json.Marshal(starling.Enrollment{V: 1, Token: text, CSR: csr, Node: cfg.Node, Region: cfg.Region, Addr: cmp.Or(o.advertise, cfg.Listen)})
	if err != nil {
		return err
	}
	conn, err := net.ListenPacket("udp", ":0")
	if err != nil {
		return err
	}
	defer conn.Close()
	q := mesh.Question{Addr: o.join, Cluster: token.Cluster, Pin: token.Pin, Request: request, Conn: conn}
	if q.DialTCP, err = dialTCP(cfg.Proxy); err != nil {
		return err
	}
	if cfg.Proxy != "" {
		q.Conn = nil
	}
	answer, err := mesh.Enroll(ctx, q)
	if errors.Is(err, identity.ErrPin) {
		return &refusedError{fmt.Errorf("at %s is %w", o.join, identity.ErrPin)}
	}
	if err != nil {
		return fmt.Errorf("no node of the cluster answers at %s: is one running there, and does UDP or TCP get through? (%w)", o.join, err)
	}
	var e starling.Enrolled
	if err := json.Unmarshal(answer, &e); err != nil {
		return &refusedError{fmt.Errorf("the answer is of no release that this one knows: %w", err)}
	}
	if e.Code != "" {
		return &refusedError{wire.Errorf(e.Code, "%s", e.Message)}
	}
	return furnish(dir, cfg, e)
}

// reachable says that nobody on another machine could dial the new node, as with the
// default of --listen. One that nobody has to dial may say what it likes.
func (o *joinOptions) reachable(cfg starling.Config) error {
	addr := cmp.Or(o.advertise, cfg.Listen)
	host, _, _ := net.SplitHostPort(o.join)
	there := net.ParseIP(host)
	host, _, _ = net.SplitHostPort(addr)
	if here := net.ParseIP(host); there == nil || there.IsLoopback() || here == nil || !here.IsLoopback() || cfg.Reachability == starling.ReachOutbound {
		return nil
	}
	return usagef("other machines cannot reach this node at %s: name an address of this machine with --listen, or with --advertise that of one which sends on to it", addr)
}

// free says that a node could not listen at an address.
func free(addr string) error {
	s, err := listen(addr)
	if err == nil {
		s.close()
	}
	return err
}

// newNode is the configuration of a node that joins a cluster, as far as it was asked for here.
func newNode(dir, cluster, node, region string, cfg starling.Config) starling.Config {
	is := nodeConfig(dir, cluster, node, region, cfg.Listen)
	is.Reachability, is.Proxy = cfg.Reachability, cfg.Proxy
	is.Limits, is.LogLevel, is.WAN = cfg.Limits, cfg.LogLevel, cfg.WAN
	return is
}

// furnish writes what a new node was given. Its configuration comes last: with that it
// is a node.
func furnish(dir string, cfg starling.Config, e starling.Enrolled) error {
	is := newNode(dir, e.Cluster, e.Node, e.Region, cfg)
	is.Peers = []starling.Peer{{ID: e.Node, Region: e.Region, Addr: e.Addr, Signer: e.AuthorityKey != ""}}
	is.Regions, is.Seeds, is.Directory, is.Survive = e.Regions, e.Seeds, e.Directory, e.Survive
	is.ReplaceAfter, is.CertLife = e.ReplaceAfter, e.CertLife
	if err := is.Check(); err != nil {
		return err
	}
	text, err := writeConfig(is)
	if err != nil {
		return err
	}
	if e.AuthorityKey != "" {
		authority, err := identity.Load([]byte(e.AuthorityChain), []byte(e.AuthorityKey))
		if err != nil {
			return err
		}
		if err := saveAuthority(filepath.Join(dir, starling.SignerFolder), authority.Region(), authority); err != nil {
			return err
		}
	}
	err = errors.Join(
		home.WriteFile(is.TLS.CA, []byte(e.Root)),
		home.WriteFile(is.TLS.Cert, []byte(e.Chain)),
		home.WriteFile(is.GossipKey, encodeSecret(e.Secret)),
		home.WriteFile(filepath.Join(dir, starling.DirectoryFile), e.Copy),
	)
	if err != nil {
		return err
	}
	return home.WriteFile(filepath.Join(dir, nodeFile), text)
}

// ownFile is the configuration in a data folder, "" if there is none.
func ownFile(dir string) string {
	path := filepath.Join(dir, nodeFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return path
}
