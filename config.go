package starling

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/relay"
	"github.com/starling-im/starling/room"
	"github.com/starling-im/starling/wire"
)

// Config is what a node has to be told. It is read from a file, the
// environment and flags by edge-node; see docs/reference/config.md.
type Config struct {
	Cluster string `koanf:"cluster" help:"name of the mesh; part of every node's identity"`
	Node    string `koanf:"node" help:"id of this node, unique in the mesh and kept for ever"`
	Region  string `koanf:"region" help:"region of this node"`
	Listen  string `koanf:"listen" help:"host:port, for UDP (clients, links and gossip) and for TCP (HTTPS: /healthz, /metrics)"`
	Data    string `koanf:"data" help:"folder of everything that this node keeps"`
	// Peers are the nodes of a new mesh, this one included. They decide where
	// groups live at first; afterwards the directory says who there is, and gossip where.
	Peers []Peer `koanf:"peers" help:"the nodes of a new mesh, this one included: id, region, addr"`
	// Regions may have no nodes yet: a mesh can begin with one node.
	Regions []string `koanf:"regions" help:"regions of a new mesh, that of the directory first; default those of peers"`
	Seeds   []string `koanf:"seeds" help:"host:port of other nodes, for one that came in with a join token"`
	// Directory are the first voters of group 0, for a node that came later.
	Directory       []string `koanf:"directory" help:"nodes that founded the directory; default chosen among peers"`
	CertLife        string   `koanf:"cert_life" help:"how long the certificates are good for that this node signs, such as 720h"`
	TLS             TLS      `koanf:"tls" help:"PEM files of this node's identity"`
	GossipKey       string   `koanf:"gossip_key" help:"file with the key of the gossip: 32 bytes in base64"`
	Survive         string   `koanf:"survive" help:"what a room outlives: node (three nodes of its region), region (three regions), none"`
	GroupsPerRegion int      `koanf:"groups_per_region" help:"Raft groups per region"`
	Apps            []App    `koanf:"apps" help:"tenants of a new mesh: name, open, homes, keys"`
	// ReplaceAfter is for nodes that do not come back; see geo.FailedGrace.
	ReplaceAfter string `koanf:"replace_after" help:"how long a node may be gone before its replicas are made anew elsewhere, such as 15m"`
	// Reachability and Proxy are of links between nodes; clients reach a node as they may.
	Reachability string `koanf:"reachability" help:"full, or outbound: nobody can dial this node, as behind a NAT or a firewall, so it dials all others"`
	Proxy        string `koanf:"proxy" help:"http://host:port of an HTTP proxy that links to other nodes go through, by TCP"`
	// Costs are of links of this node; those that are not named are free.
	Costs    []Cost `koanf:"costs" help:"what a GB costs on links of this node: to, price"`
	Limits   string `koanf:"limits" help:"production, or bench: rates off, memory limits on"`
	WAN      bool   `koanf:"wan" help:"delay packets to other regions by their measured round-trip times; for trying things out on one machine"`
	LogLevel string `koanf:"log_level" help:"debug, info, warn or error"`
	NoSync   bool   `koanf:"no_sync" help:"do not wait for the disk; acknowledged messages can be lost"`
}

// Peer is a node of the mesh as the configuration names it.
type Peer struct {
	ID     string `koanf:"id" json:"id" help:"the node's id"`
	Region string `koanf:"region" json:"region" help:"its region"`
	Addr   string `koanf:"addr" json:"addr" help:"its host:port as others reach it"`
	Key    string `koanf:"key" json:"key,omitempty" help:"its public key: base64 of the PKIX form; not checked if it is missing"`
	Signer bool   `koanf:"signer" json:"signer,omitzero" help:"it signs certificates, with the authorities in the folder signer of its data"`
}

// Cost is the price of a GB on the links to a node, or to all nodes of a region. A
// link has one price: the higher one if its ends say different ones.
type Cost struct {
	To    string  `koanf:"to" json:"to" help:"a node's id, or a region; the node counts if both are named"`
	Price float64 `koanf:"price" json:"price" help:"per GB, in one unit of money for the whole mesh: 0.01 is worth a detour of 10 ms"`
}

// TLS names the PEM files of a node's identity.
type TLS struct {
	CA   string `koanf:"ca" help:"PEM file of the root above the nodes' certificates"`
	Cert string `koanf:"cert" help:"PEM file of this node's certificate"`
	Key  string `koanf:"key" help:"PEM file of its private key"`
}

// App is a tenant of a new mesh. An open app's rooms come to be at first use,
// and anyone of the app may send to them. Each room lives in one of the homes.
type App struct {
	Name  string   `koanf:"name" help:"the app's name, which is in every token"`
	Open  bool     `koanf:"open" help:"rooms come to be at first use, and anyone of the app may send"`
	Homes []string `koanf:"homes" help:"regions that the rooms spread over; default all"`
	Keys  []AppKey `koanf:"keys" help:"keys that sign the app's tokens"`
}

// AppKey signs tokens of an app; the secret is base64 of at least 32 bytes.
type AppKey struct {
	ID     string `koanf:"id" help:"the kid of the tokens"`
	Secret string `koanf:"secret" help:"at least 32 bytes in base64"`
}

// DefaultConfig is what a configuration starts from.
func DefaultConfig() Config {
	return Config{Cluster: "starling", Listen: "127.0.0.1:7400", Data: "data", Survive: string(geo.SurviveRegion), GroupsPerRegion: 4, CertLife: identity.NodeLife.String(), ReplaceAfter: geo.FailedGrace.String(), Reachability: ReachFull, Limits: Production, LogLevel: "info"}
}

// The profiles of Config.Limits.
const (
	Production = "production"
	Bench      = "bench"
)

// The values of Config.Reachability.
const (
	ReachFull     = "full"
	ReachOutbound = "outbound"
)

// A ConfigError says which field is wrong, and why.
type ConfigError struct{ Field, Problem string }

func (e *ConfigError) Error() string { return fmt.Sprintf("config: %s %s", e.Field, e.Problem) }

// Check returns a *ConfigError for the first field that cannot work.
func (c Config) Check() error {
	self := slices.IndexFunc(c.Peers, func(p Peer) bool { return p.ID == c.Node })
	for _, rule := range []struct {
		bad            bool
		field, problem string
	}{
		{c.Cluster == "", "cluster", "is missing"},
		{c.Node == "", "node", "is missing: give this node an id, such as fra-1"},
		{c.Region == "", "region", "is missing: give this node's region, such as fra"},
		{badAddr(c.Listen), "listen", fmt.Sprintf("is %q, not host:port", c.Listen)},
		{c.Data == "", "data", "is missing: name a folder"},
		{self < 0, "peers", fmt.Sprintf("do not include this node, %q", c.Node)},
		{self >= 0 && c.Peers[self].Region != c.Region, "peers", fmt.Sprintf("say that %q is in another region than %q", c.Node, c.Region)},
		{c.TLS.CA == "" || c.TLS.Cert == "" || c.TLS.Key == "", "tls", "needs ca, cert and key"},
		{c.GossipKey == "", "gossip_key", "is missing: name a file"},
		{!slices.Contains([]string{string(geo.SurviveNode), string(geo.SurviveRegion), string(geo.SurviveNone)}, c.Survive), "survive", fmt.Sprintf("is %q, not node, region or none", c.Survive)},
		{c.GroupsPerRegion < 1 || c.GroupsPerRegion > maxGroupsPerRegion, "groups_per_region", fmt.Sprintf("is %d, not 1 to %d", c.GroupsPerRegion, maxGroupsPerRegion)},
		{c.certLife() < minCertLife, "cert_life", fmt.Sprintf("is %q, not a time of at least %v, such as 720h", c.CertLife, minCertLife)},
		{c.grace() <= 0, "replace_after", fmt.Sprintf("is %q, not a time such as 15m", c.ReplaceAfter)},
		{c.Reachability != ReachFull && c.Reachability != ReachOutbound, "reachability", fmt.Sprintf("is %q, not %s or %s", c.Reachability, ReachFull, ReachOutbound)},
		{c.Proxy != "" && badProxy(c.Proxy), "proxy", "is not http://[user:password@]host:port"},
		{c.Limits != Production && c.Limits != Bench, "limits", fmt.Sprintf("is %q, not %s or %s", c.Limits, Production, Bench)},
		{!slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel), "log_level", fmt.Sprintf("is %q, not debug, info, warn or error", c.LogLevel)},
	} {
		if rule.bad {
			return &ConfigError{rule.field, rule.problem}
		}
	}
	if err := c.checkPeers(); err != nil {
		return err
	}
	if err := c.checkCosts(); err != nil {
		return err
	}
	if err := c.checkApps(); err != nil {
		return err
	}
	return c.checkDirectory()
}

// grace is how long a node may be gone, 0 if that is no time.
func (c Config) grace() time.Duration {
	d, _ := time.ParseDuration(c.ReplaceAfter)
	return d
}

// certLife is how long signed certificates are good for, 0 if that is no time.
func (c Config) certLife() time.Duration {
	d, _ := time.ParseDuration(c.CertLife)
	return d
}

// minCertLife leaves time for a renewal and its second try.
const minCertLife = 30 * time.Second

// checkDirectory makes sure that the directory will take what this
// configuration says of a new mesh: once written it cannot be taken back.
func (c Config) checkDirectory() error {
	first := directory.Change{Init: c.firstDirectory()}
	if _, err := directory.New(geo.Rank).Apply(first); err != nil {
		return &ConfigError{"peers and apps", "make no directory: " + err.Error()}
	}
	if n := len(directory.Encode(first)); n > room.ContentBytes {
		return &ConfigError{"groups_per_region", fmt.Sprintf("and peers make a first directory of %d bytes, %d are the limit: start with fewer", n, room.ContentBytes)}
	}
	return nil
}

// addr is the address at which others reach this node, which need not be the
// one that it listens on.
func (c Config) addr() string {
	for _, p := range c.Peers {
		if p.ID == c.Node {
			return p.Addr
		}
	}
	return c.Listen
}

// maxGroupsPerRegion bounds what a new mesh starts with.
const maxGroupsPerRegion = 256

func (c Config) checkPeers() error {
	seen := map[string]bool{}
	for i, p := range c.Peers {
		field := fmt.Sprintf("peers[%d]", i)
		switch {
		case p.ID == "" || p.Region == "":
			return &ConfigError{field, "needs id and region"}
		case badAddr(p.Addr):
			return &ConfigError{field, fmt.Sprintf("has the addr %q, not host:port", p.Addr)}
		case seen[p.ID]:
			return &ConfigError{field, fmt.Sprintf("repeats the id %q", p.ID)}
		}
		seen[p.ID] = true
	}
	for i, addr := range c.Seeds {
		if badAddr(addr) {
			return &ConfigError{fmt.Sprintf("seeds[%d]", i), fmt.Sprintf("is %q, not host:port", addr)}
		}
	}
	return nil
}

func (c Config) checkApps() error {
	for i, a := range c.Apps {
		field := fmt.Sprintf("apps[%d]", i)
		if a.Name == "" {
			return &ConfigError{field, "needs a name"}
		}
		for _, home := range a.Homes {
			if !slices.Contains(c.regions(), home) {
				return &ConfigError{field, fmt.Sprintf("has the home %q, which is none of the regions", home)}
			}
		}
		for _, k := range a.Keys {
			if b, err := base64.StdEncoding.DecodeString(k.Secret); err != nil || len(b) < 32 {
				return &ConfigError{field, fmt.Sprintf("has the key %q whose secret is not base64 of at least 32 bytes", k.ID)}
			}
		}
	}
	return nil
}

func badAddr(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil || port == "" {
		return true
	}
	_, err = net.LookupPort("udp", port)
	return err != nil
}

func badProxy(proxy string) bool {
	u, err := url.Parse(proxy)
	return err != nil || u.Scheme != "http" || u.Port() == "" || u.Hostname() == ""
}

func readKey(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, &ConfigError{"gossip_key", err.Error()}
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != 32 {
		return nil, &ConfigError{"gossip_key", fmt.Sprintf("%s does not hold 32 bytes in base64", file)}
	}
	return key, nil
}

// sites are the peers as package geo sees them.
func (c Config) sites() []geo.Site {
	sites := make([]geo.Site, len(c.Peers))
	for i, p := range c.Peers {
		sites[i] = geo.Site{Node: p.ID, Region: p.Region}
	}
	return sites
}

// regions returns the regions of a new mesh: those of all peers, in order and once
// each, if it has no list of its own.
func (c Config) regions() []string {
	if len(c.Regions) > 0 {
		return c.Regions
	}
	var regions []string
	for _, p := range c.Peers {
		regions = append(regions, p.Region)
	}
	slices.Sort(regions)
	return slices.Compact(regions)
}

// directoryVoters are the nodes of group 0: like those of a group whose home
// is the first region, so that every node computes the same ones.
func (c Config) directoryVoters() []string {
	if len(c.Directory) > 0 {
		return c.Directory
	}
	return geo.Voters(c.regions()[0], geo.Survive(c.Survive), c.sites(), geo.Pops(), "directory")
}

// firstDirectory is the directory of a new mesh.
func (c Config) firstDirectory() directory.Init {
	first := directory.Init{}
	for _, p := range c.Peers {
		first.Nodes = append(first.Nodes, directory.Node{ID: p.ID, Region: p.Region, Addr: p.Addr, Key: p.Key, Signer: p.Signer})
	}
	id := uint32(1)
	for _, region := range c.regions() {
		for range c.GroupsPerRegion {
			voters := geo.Voters(region, geo.Survive(c.Survive), c.sites(), geo.Pops(), fmt.Sprint("group/", id))
			if len(voters) == 0 { // no node is there yet: the first one keeps a place for those that come
				voters = []string{c.Peers[0].ID}
			}
			first.Groups = append(first.Groups, directory.Group{ID: id, Region: region, Voters: voters})
			id++
		}
	}
	for _, a := range c.Apps {
		app := directory.App{Name: a.Name, Open: a.Open, Homes: a.Homes}
		if len(app.Homes) == 0 {
			app.Homes = c.regions()
		}
		for _, k := range a.Keys {
			secret, _ := base64.StdEncoding.DecodeString(k.Secret) // checked before
			app.Keys = append(app.Keys, directory.Key{ID: k.ID, Secret: secret})
		}
		first.Apps = append(first.Apps, app)
	}
	return first
}

// sessionLimits are the bounds of one client session in a limits profile.
func (c Config) sessionLimits() relay.Limits {
	if c.Limits == Bench {
		return relay.Limits{SendsPerSecond: -1, SignalsPerSecond: -1, AsksPerSecond: -1, InFlight: 4096}
	}
	return relay.Limits{}
}

// admission bounds the sends of all clients in a limits profile.
func (c Config) admission() relay.AdmissionConfig {
	if c.Limits == Bench {
		return relay.AdmissionConfig{RoomPerSecond: -1}
	}
	return relay.AdmissionConfig{}
}

// tokenLife is the longest life of a token in a limits profile: a token that
// is typed in while trying things out lasts a day.
func (c Config) tokenLife() time.Duration {
	if c.Limits == Bench {
		return 24 * time.Hour
	}
	return wire.TokenLife
}
