package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/identity"
)

// clusterOptions are the flags of cluster init.
type clusterOptions struct {
	dir      string
	cluster  string
	regions  []string
	node     string
	listen   string
	survive  string
	app      string
	certLife time.Duration
}

// The folder of what is to be kept offline, in the first node's data folder.
const offlineFolder = "offline"

func (a *app) clusterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cluster", Short: "Make a new cluster, or a region in one", GroupID: groupNodes,
		Long: `Make a new cluster: a mesh of nodes that know one another by certificates under one
root. Other nodes come in with tokens, see "edge-node join-token". With the root regions
can be added later.`,
		Example: "  edge-node cluster init ./fra-1 --regions fra,iad\n  edge-node cluster region sin --data ./fra-1 --offline ./drawer",
		Args:    noCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.clusterInitCommand(), a.clusterRegionCommand())
	return cmd
}

func (a *app) clusterInitCommand() *cobra.Command {
	o := clusterOptions{}
	cmd := &cobra.Command{
		Use: "init DIR", Short: "Make a cluster, and its first node's data folder",
		Long: `Make a cluster, and in DIR the data folder of its first node, which is in the first
of the regions. DIR then holds

  offline/   the root of all certificates: move it away, to a place without a network
  signer/    an authority for each region, by which this node signs certificates
  node.*     the configuration, certificate and key of this node
  gossip.key the secret that all nodes share

Nodes start without the root. It is needed again to make the authority of another
region, or a new one after five years: edge-node cluster region.`,
		Example: `  edge-node cluster init ./fra-1 --regions fra,iad
  edge-node run --data ./fra-1
  edge-node join-token create --data ./fra-1 --region iad`,
		Args: needs("DIR"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(_ *cobra.Command, args []string) error {
			o.dir = args[0]
			if err := o.check(); err != nil {
				return err
			}
			if err := a.initCluster(o); err != nil {
				return fmt.Errorf("the cluster is not made: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.regions, "regions", nil, "regions of the cluster, that of this node first; named for the airports of cities they have places")
	f.StringVar(&o.cluster, "cluster", "starling", "name of the cluster, which is in every certificate")
	f.StringVar(&o.node, "node", "", "id of this node (default: its region and 1)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:7400", "host:port of this node, as others reach it")
	f.StringVar(&o.survive, "survive", string(geo.SurviveNode), "what a room outlives: node (three nodes of its region), region (three regions), none")
	f.StringVar(&o.app, "app", "demo", "first app (tenant): its rooms come to be at first use")
	f.DurationVar(&o.certLife, "cert-life", identity.NodeLife, "how long certificates of nodes are good for; they are renewed after two thirds of it")
	must(cmd.RegisterFlagCompletionFunc("regions", cobra.FixedCompletions(geo.Pops().Regions(), cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("survive", cobra.FixedCompletions([]string{string(geo.SurviveRegion), string(geo.SurviveNode), string(geo.SurviveNone)}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func (o *clusterOptions) check() error {
	switch {
	case len(o.regions) == 0 || slices.Contains(o.regions, ""):
		return usagef("--regions needs names, such as fra,iad")
	case len(slices.Compact(slices.Sorted(slices.Values(o.regions)))) != len(o.regions):
		return usagef("--regions names a region twice")
	}
	if o.node == "" {
		o.node = o.regions[0] + "-1"
	}
	if !isAddr(o.listen) {
		return usagef("--listen is %q, not host:port", o.listen)
	}
	for _, r := range o.regions {
		if err := identity.CheckName("region", r); err != nil {
			return usagef("--regions: %v", err)
		}
	}
	return nil
}

// initCluster makes a cluster whole or not at all.
func (a *app) initCluster(o clusterOptions) error {
	if entries, err := os.ReadDir(o.dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty: name a folder that is, or that is not there", o.dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	cfg, err := o.make(dir)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir)) // it was empty, or not there
	}
	if a.json {
		return a.printJSON(struct {
			Cluster string   `json:"cluster"`
			Node    string   `json:"node"`
			Data    string   `json:"data"`
			Regions []string `json:"regions"`
			Offline string   `json:"offline"`
		}{o.cluster, o.node, dir, o.regions, filepath.Join(dir, offlineFolder)})
	}
	fmt.Fprintf(a.stdout, `The cluster %q is made, and %s is the data folder of its first node, %s.

Move %s to a place without a network, such as a drive in a drawer.
Nodes start without it. Whoever has it can make nodes of this cluster.

Then, one after the other:

  %s run --data %s
  %s join-token create --data %s --region %s
%s`, o.cluster, o.dir, cfg.Node, filepath.Join(o.dir, offlineFolder), programName(), o.dir, programName(), o.dir, o.regions[len(o.regions)-1], wants[geo.Survive(o.survive)])
	return nil
}

// wants says which nodes a cluster needs for what its rooms are to survive.
var wants = map[geo.Survive]string{
	geo.SurviveNode:   "\nRooms survive the loss of a node where their region has three.\n",
	geo.SurviveRegion: "\nRooms survive the loss of a region once three of them have nodes.\n",
}

func (o *clusterOptions) make(dir string) (starling.Config, error) {
	now := time.Now()
	root, err := identity.NewRoot(o.cluster, now)
	if err != nil {
		return starling.Config{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return starling.Config{}, err
	}
	errs := []error{saveAuthority(filepath.Join(dir, offlineFolder), "root", root), home.WriteFile(filepath.Join(dir, "ca.crt"), root.RootPEM())}
	var own *identity.Authority
	for i, region := range o.regions {
		authority, err := root.ForRegion(region, now)
		if err != nil {
			return starling.Config{}, err
		}
		if i == 0 {
			own = authority
		}
		errs = append(errs, saveAuthority(filepath.Join(dir, starling.SignerFolder), region, authority))
	}
	key, err := nodeKey(dir)
	if err != nil {
		return starling.Config{}, err
	}
	host, _, _ := net.SplitHostPort(o.listen)
	chain, err := own.Sign(identity.Request{Node: o.node, Region: o.regions[0], Hosts: []string{host}, Key: key.Public(), Life: o.certLife}, now)
	if err != nil {
		return starling.Config{}, err
	}
	public, err := publicKey(key)
	if err != nil {
		return starling.Config{}, err
	}
	cfg := nodeConfig(dir, o.cluster, o.node, o.regions[0], o.listen)
	cfg.Peers = []starling.Peer{{ID: o.node, Region: o.regions[0], Addr: o.listen, Key: public, Signer: true}}
	cfg.Regions, cfg.Survive, cfg.CertLife = o.regions, o.survive, o.certLife.String()
	for _, app := range []string{o.app, directory.SystemApp} {
		cfg.Apps = append(cfg.Apps, starling.App{
			Name: app, Open: true, Homes: o.regions,
			Keys: []starling.AppKey{{ID: app + "-1", Secret: base64.StdEncoding.EncodeToString(secret())}},
		})
	}
	if err := cfg.Check(); err != nil {
		return cfg, err
	}
	text, err := writeConfig(cfg)
	return cfg, errors.Join(append(errs, err,
		home.WriteFile(cfg.TLS.Cert, chain),
		home.WriteFile(cfg.GossipKey, encodeSecret(secret())),
		home.WriteFile(filepath.Join(dir, nodeFile), text),
	)...)
}

// nodeConfig is that of a node whose files are all in its data folder.
func nodeConfig(dir, cluster, node, region, listen string) starling.Config {
	cfg := starling.DefaultConfig()
	cfg.Cluster, cfg.Node, cfg.Region, cfg.Listen, cfg.Data = cluster, node, region, listen, dir
	cfg.TLS = starling.TLS{CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "node.crt"), Key: filepath.Join(dir, "node.key")}
	cfg.GossipKey = filepath.Join(dir, "gossip.key")
	return cfg
}

// oneRegion is for commands that must be told a region.
func oneRegion(region string) error {
	if strings.TrimSpace(region) == "" {
		return usagef("--region is missing: name a region of the cluster")
	}
	return nil
}
