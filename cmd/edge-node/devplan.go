package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/identity"
)

// devOptions are the flags of dev.
type devOptions struct {
	regions   []string
	nodes     int
	port      int
	data      string
	limits    string
	wan       bool
	noSync    bool
	logLevel  string
	asked     func(flag string) bool // whether it was given
	processes bool
	restart   time.Duration
	replace   time.Duration
	certLife  time.Duration
}

// devFormat is the version of devFile.
const devFormat = 1

// devFile is what a mesh on one machine keeps in DIR/dev.json, so that the
// next start on DIR makes the same mesh, at other ports if need be.
type devFile struct {
	Format  int      `json:"format"`
	Cluster string   `json:"cluster"`
	Regions []string `json:"regions"`
	Nodes   int      `json:"nodes"`
	Groups  int      `json:"groups_per_region"`
	Survive string   `json:"survive"`
	Gossip  []byte   `json:"gossip_key"`
	// Keys make tokens, by app.
	Keys map[string]home.Key `json:"keys"`
}

const (
	devCluster = "dev"
	devApp     = "demo"
	devGroups  = 4
	// maxDevNodes bounds the nodes of a mesh on one machine.
	maxDevNodes = 64
)

// devPlan is a mesh that is ready to be started.
type devPlan struct {
	devFile
	dir      string
	root     *identity.Authority
	signers  map[string]*identity.Authority // by region
	nodes    []starling.Peer
	configs  []starling.Config
	certLife time.Duration
	bound    []sockets // of each node; closed before a child takes over
	close    func()    // gives the folder back
}

// planDev makes or reuses the folder, takes the ports and writes what the
// nodes read.
func planDev(o devOptions) (plan *devPlan, err error) {
	p := &devPlan{dir: o.data, close: func() {}}
	defer func() {
		if err != nil {
			p.release()
		}
	}()
	if err := p.open(o); err != nil {
		return nil, err
	}
	if err := p.bind(o.port); err != nil {
		return nil, err
	}
	p.certLife = o.certLife
	if err := errors.Join(p.authorities(), p.identify()); err != nil {
		return nil, err
	}
	for _, n := range p.nodes {
		if err := p.node(n, o); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// release gives back what planDev took.
func (p *devPlan) release() {
	for _, s := range p.bound {
		s.close()
	}
	p.close()
}

// open locks the folder and reads or writes dev.json.
func (p *devPlan) open(o devOptions) error {
	temporary := o.data == ""
	if temporary {
		dir, err := os.MkdirTemp("", temporaryPrefix)
		if err != nil {
			return err
		}
		p.dir = dir
		p.close = func() { _ = os.RemoveAll(dir) }
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	dir, err := filepath.Abs(p.dir)
	if err != nil {
		return err
	}
	p.dir = dir
	unlock, err := lockFile(filepath.Join(p.dir, "dev.lock"))
	if err != nil {
		return err
	}
	remove := p.close
	p.close = func() { unlock(); remove() }
	if err := p.load(o); err != nil {
		return err
	}
	for _, region := range p.Regions {
		for i := range p.Nodes {
			p.nodes = append(p.nodes, starling.Peer{ID: fmt.Sprintf("%s-%d", region, i+1), Region: region})
		}
	}
	return nil
}

// errLocked says that another dev uses the folder.
var errLocked = errors.New("is in use by another edge-node")

func (p *devPlan) load(o devOptions) error {
	path := filepath.Join(p.dir, "dev.json")
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.devFile = newDevFile(o)
		if b, err = json.MarshalIndent(p.devFile, "", "  "); err != nil {
			return err
		}
		return home.WriteFile(path, append(b, '\n'))
	case err != nil:
		return err
	}
	if err := json.Unmarshal(b, &p.devFile); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	switch {
	case p.Format > devFormat:
		return fmt.Errorf("data folder %s is from a newer release: format %d, this one knows %d; use that release, or another --data", p.dir, p.Format, devFormat)
	case o.asked("regions") && !slices.Equal(o.regions, p.Regions), o.asked("nodes") && o.nodes != p.Nodes:
		return fmt.Errorf("data folder %s holds a mesh of %v with %s each: leave --regions and --nodes out, or use another --data", p.dir, p.Regions, plural(p.Nodes, "node"))
	}
	return nil
}

func newDevFile(o devOptions) devFile {
	f := devFile{
		Format: devFormat, Cluster: devCluster, Regions: o.regions, Nodes: o.nodes, Groups: devGroups,
		Survive: "node", Gossip: secret(), Keys: make(map[string]home.Key),
	}
	if len(o.regions) >= 3 {
		f.Survive = "region"
	}
	for _, app := range []string{devApp, directory.SystemApp} {
		f.Keys[app] = home.Key{ID: app + "-dev", Secret: secret()}
	}
	return f
}

func secret() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return b
}

// bind takes a port for each node.
func (p *devPlan) bind(first int) error {
	for i := range p.nodes {
		port := 0
		if first > 0 {
			port = first + i
		}
		s, err := listen(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return err
		}
		p.bound = append(p.bound, s)
		p.nodes[i].Addr = s.addr()
	}
	return nil
}

// authorities loads or makes the root of the mesh and the authorities of its regions,
// which the first node signs with.
func (p *devPlan) authorities() error {
	first := filepath.Join(p.dir, p.nodes[0].ID)
	p.signers = map[string]*identity.Authority{}
	root, err := loadAuthority(p.dir, "ca")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, identity.ErrNoAuthorities) {
		if root, err = identity.NewRoot(p.Cluster, time.Now()); err == nil {
			err = errors.Join(saveAuthority(p.dir, "ca", root), home.WriteFile(filepath.Join(p.dir, "gossip.key"), encodeSecret(p.Gossip)))
		}
	}
	if err != nil {
		return err
	}
	p.root = root
	for _, region := range p.Regions {
		dir := filepath.Join(first, starling.SignerFolder)
		a, err := loadAuthority(dir, region)
		if errors.Is(err, fs.ErrNotExist) {
			if a, err = root.ForRegion(region, time.Now()); err == nil {
				err = saveAuthority(dir, region, a)
			}
		}
		if err != nil {
			return err
		}
		p.signers[region] = a
	}
	return nil
}

// identify gives each node a key, if it has none from an earlier start, and a
// certificate.
func (p *devPlan) identify() error {
	for i := range p.nodes {
		n := &p.nodes[i]
		dir := filepath.Join(p.dir, n.ID)
		key, err := nodeKey(dir)
		if err != nil {
			return err
		}
		chain, err := p.signers[n.Region].Sign(identity.Request{Node: n.ID, Region: n.Region, Key: key.Public(), Life: p.certLife}, time.Now())
		if err != nil {
			return err
		}
		if err := home.WriteFile(filepath.Join(dir, "node.crt"), chain); err != nil {
			return err
		}
		if n.Key, err = publicKey(key); err != nil {
			return err
		}
		n.Signer = i == 0
	}
	return nil
}

// node writes a node's configuration.
func (p *devPlan) node(n starling.Peer, o devOptions) error {
	dir := filepath.Join(p.dir, n.ID)
	cfg := starling.DefaultConfig()
	cfg.Cluster, cfg.Node, cfg.Region, cfg.Listen, cfg.Data = p.Cluster, n.ID, n.Region, n.Addr, dir
	cfg.Peers = p.nodes
	cfg.TLS = starling.TLS{
		CA:   filepath.Join(p.dir, "ca.crt"),
		Cert: filepath.Join(dir, "node.crt"),
		Key:  filepath.Join(dir, "node.key"),
	}
	cfg.GossipKey = filepath.Join(p.dir, "gossip.key")
	cfg.Survive, cfg.GroupsPerRegion = p.Survive, p.Groups
	cfg.ReplaceAfter, cfg.CertLife = o.replace.String(), o.certLife.String()
	cfg.Limits, cfg.WAN, cfg.LogLevel, cfg.NoSync = o.limits, o.wan, o.logLevel, o.noSync
	for _, app := range []string{devApp, directory.SystemApp} {
		k := p.Keys[app]
		cfg.Apps = append(cfg.Apps, starling.App{
			Name: app, Open: true, Homes: p.Regions,
			Keys: []starling.AppKey{{ID: k.ID, Secret: base64.StdEncoding.EncodeToString(k.Secret)}},
		})
	}
	if err := cfg.Check(); err != nil {
		return err
	}
	text, err := writeConfig(cfg)
	if err != nil {
		return err
	}
	p.configs = append(p.configs, cfg)
	return home.WriteFile(filepath.Join(dir, nodeFile), text)
}

func (p *devPlan) configFile(i int) string { return filepath.Join(p.dir, p.nodes[i].ID, nodeFile) }
