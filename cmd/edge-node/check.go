package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/identity"
)

// checkNode says whether a node could start with a configuration. It reads the
// files that this one names, and starts and writes nothing.
func checkNode(cfg starling.Config) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	if err := checkIdentity(cfg.TLS); err != nil {
		return &starling.ConfigError{Field: "tls", Problem: err.Error()}
	}
	if _, err := net.ResolveUDPAddr("udp", cfg.Listen); err != nil {
		return &starling.ConfigError{Field: "listen", Problem: "is " + cfg.Listen + ": " + err.Error()}
	}
	if err := checkFolder(cfg.Data); err != nil {
		return &starling.ConfigError{Field: "data", Problem: err.Error()}
	}
	// A node that is made and not run proves that the rest fits together.
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = starling.New(cfg, starling.Env{Conn: conn, Log: slog.New(slog.DiscardHandler), Version: buildInfo().Version})
	return err
}

// checkIdentity makes sure that other nodes will believe the certificate.
func checkIdentity(t starling.TLS) error {
	var pems [3][]byte
	for i, name := range []string{t.CA, t.Cert, t.Key} {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		pems[i] = b
	}
	id, err := identity.NewCredentials(pems[0], pems[1], pems[2])
	if err != nil {
		return err
	}
	chain, err := identity.ParseChain(pems[1])
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: id.Roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("%s is not good under %s: %w", t.Cert, t.CA, err)
	}
	return nil
}

// checkFolder makes sure that there is a folder, or that one can be made.
func checkFolder(dir string) error {
	for path := filepath.Clean(dir); ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		switch {
		case err == nil && info.IsDir():
			return nil
		case err == nil:
			return fmt.Errorf("is %s, and %s is no folder", dir, path)
		case !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path):
			return fmt.Errorf("is %s: %w", dir, err)
		}
	}
}

// doubts are what is odd about a node's configuration with which it can run
// all the same.
func doubts(cfg starling.Config) (all []string) {
	var unknown []string
	for _, p := range cfg.Peers {
		if _, ok := geo.Pops().Place(p.Region); !ok && !slices.Contains(unknown, p.Region) {
			unknown = append(unknown, p.Region)
		}
	}
	if cfg.WAN && len(unknown) > 0 {
		all = append(all, fmt.Sprintf("wan delays nothing to and from %s, where nothing was measured; there are measurements of %s",
			strings.Join(unknown, ", "), strings.Join(geo.Pops().Regions(), ", ")))
	}
	if weak := fragile(cfg); weak != "" {
		all = append(all, weak)
	}
	return all
}

// voters is how many nodes have a copy of a room that survives anything.
const voters = 3

// fragile says that rooms survive less than survive asks for, since there are
// too few peers for it; "" if all is well. Nobody asked for anything with none. Where
// the regions are named, as by cluster init, nodes come in later and are no peers.
func fragile(cfg starling.Config) string {
	if len(cfg.Regions) > 0 {
		return ""
	}
	nodes := make(map[string]int)
	for _, p := range cfg.Peers {
		nodes[p.Region]++
	}
	switch geo.Survive(cfg.Survive) {
	case geo.SurviveRegion:
		if len(nodes) < voters {
			return fmt.Sprintf("rooms survive the loss of nothing: survive is region, which takes %d regions, and the peers are in %d", voters, len(nodes))
		}
	case geo.SurviveNode:
		var few []string
		for _, region := range slices.Sorted(maps.Keys(nodes)) {
			if nodes[region] < voters {
				few = append(few, fmt.Sprintf("%s has %d", region, nodes[region]))
			}
		}
		if len(few) > 0 {
			return fmt.Sprintf("rooms survive the loss of nothing: survive is node, which takes %d nodes in a room's region, and %s", voters, strings.Join(few, ", "))
		}
	}
	return ""
}

// astray says that a node of a cluster is told to listen elsewhere than where the others
// dial it, which is what they were told when it came in; "" if not. What it listens at
// behind an address of another machine is its own affair.
func astray(path string, cfg starling.Config) string {
	own := ownFile(cfg.Data)
	if path != "" || own == "" {
		return ""
	}
	l, err := loadConfig(own, nil, new(pflag.FlagSet))
	if err != nil || l.Config.Listen == cfg.Listen {
		return ""
	}
	i := slices.IndexFunc(cfg.Peers, func(p starling.Peer) bool { return p.ID == cfg.Node })
	if i < 0 || cfg.Peers[i].Addr != l.Config.Listen || covers(cfg.Listen, l.Config.Listen) {
		return ""
	}
	return fmt.Sprintf("others dial %s at %s, where it is not: to move it, change listen and its addr in peers, in %s", cfg.Node, l.Config.Listen, own)
}

// covers reports whether who listens at one address hears what is sent to another.
func covers(listen, addr string) bool {
	host, port, _ := net.SplitHostPort(listen)
	_, to, _ := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return port == to && (host == "" || ip != nil && ip.IsUnspecified())
}
