// Package home keeps what the commands remember between each other: contexts,
// each of which says where a mesh is, whom to trust there, and with which keys
// to make tokens for it.
//
// It promises that only the user can read a context, and that a reader sees a
// whole one: files are replaced, never rewritten in place.
package home

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Format is the version of the files that this package writes.
const Format = 1

// A Context is how to reach one mesh.
type Context struct {
	Format  int    `json:"format"`
	Name    string `json:"name"`
	Cluster string `json:"cluster"`
	// Instance tells one start of a mesh from the next, and from another that
	// has the same name. Temporary is the folder that goes with this start;
	// "" = none.
	Instance  string `json:"instance,omitempty"`
	Temporary string `json:"temporary,omitempty"`
	// App is where commands work unless told otherwise.
	App   string `json:"app"`
	Nodes []Node `json:"nodes"`
	// CA is the certificate, in PEM, that the nodes' certificates come from;
	// ServerName is what those are for.
	CA         string `json:"ca"`
	ServerName string `json:"server_name"`
	// WAN says that packets between regions take as long as over the sea.
	WAN bool `json:"wan,omitempty"`
	// Keys make tokens, by app. That of directory.SystemApp makes operators.
	Keys map[string]Key `json:"keys"`
	// Tokens are of the demo users, by user.
	Tokens map[string]string `json:"tokens,omitempty"`
}

// A Node is one node of the mesh; Addr is host:port.
type Node struct {
	ID     string `json:"id"`
	Region string `json:"region"`
	Addr   string `json:"addr"`
}

// A Key signs tokens of an app.
type Key struct {
	ID     string `json:"id"`
	Secret []byte `json:"secret"`
}

// The errors of Load; each is wrapped in a sentence that says what to do.
var (
	ErrNone  = errors.New("there is no context")
	ErrNewer = errors.New("written by a newer release")
)

// Dir is where contexts are: $STARLING_HOME, else a folder of the user's
// configuration.
func Dir() (string, error) {
	if dir := os.Getenv("STARLING_HOME"); dir != "" {
		return dir, nil
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("set STARLING_HOME: %w", err)
	}
	return filepath.Join(config, "starling"), nil
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// file is where a context is: a name stands for a file in dir, and a path for
// itself.
func file(dir, name string) (string, error) {
	if filepath.Ext(name) == ".json" {
		return name, nil
	}
	if !validName.MatchString(name) {
		return "", fmt.Errorf("context name %q: use letters, digits, dots and dashes, or the path of a .json file", name)
	}
	return filepath.Join(dir, "contexts", name+".json"), nil
}

// Load reads a context, given by its name or the path of its file.
func Load(dir, name string) (*Context, error) {
	path, err := file(dir, name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w %q in %s: start a mesh with `edge-node dev`, name another with --context, or with --data the folder of a node that runs here", ErrNone, name, dir)
	}
	if err != nil {
		return nil, err
	}
	c := new(Context)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("context %s is damaged: %w", path, err)
	}
	if c.Format > Format {
		return nil, fmt.Errorf("context %s has format %d, %w than this one", path, c.Format, ErrNewer)
	}
	return c, nil
}

// Save writes the context, readable by the user alone, and returns its file.
func (c *Context) Save(dir string) (string, error) {
	path, err := file(dir, c.Name)
	if err != nil {
		return "", err
	}
	c.Format = Format
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, WriteFile(path, append(b, '\n'))
}

// Remove deletes a context if it is still of the same start of a mesh as c.
func (c *Context) Remove(dir string) error {
	now, err := Load(dir, c.Name)
	if err != nil || now.Instance != c.Instance {
		return nil // another mesh has taken the name
	}
	path, err := file(dir, c.Name)
	if err != nil {
		return err
	}
	return os.Remove(path)
}

// Names lists the contexts.
func Names(dir string) []string {
	paths, _ := filepath.Glob(filepath.Join(dir, "contexts", "*.json"))
	for i, p := range paths {
		paths[i] = filepath.Base(p[:len(p)-len(".json")])
	}
	return paths
}

// WriteFile replaces a file by one that only the user can read, all at once.
func WriteFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Regions returns the regions of the mesh in order, once each.
func (c *Context) Regions() []string {
	var regions []string
	for _, n := range c.Nodes {
		regions = append(regions, n.Region)
	}
	slices.Sort(regions)
	return slices.Compact(regions)
}

// Addrs returns the addresses of a region's nodes, starting with the n-th.
func (c *Context) Addrs(region string, n int) []string {
	var addrs []string
	for _, node := range c.Nodes {
		if node.Region == region {
			addrs = append(addrs, node.Addr)
		}
	}
	if len(addrs) == 0 {
		return nil
	}
	n %= len(addrs)
	return slices.Concat(addrs[n:], addrs[:n])
}

// AllAddrs returns the addresses of all nodes, those of a region first; an
// empty region stands for that of the first node.
func (c *Context) AllAddrs(region string, n int) ([]string, error) {
	if region == "" && len(c.Nodes) > 0 {
		region = c.Nodes[0].Region
	}
	addrs := c.Addrs(region, n)
	if len(addrs) == 0 {
		return nil, fmt.Errorf("context %q has no region %q; it has %s", c.Name, region, strings.Join(c.Regions(), ", "))
	}
	for _, node := range c.Nodes {
		if node.Region != region {
			addrs = append(addrs, node.Addr)
		}
	}
	return addrs, nil
}

// Roots returns whom to trust for the nodes' certificates.
func (c *Context) Roots() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(c.CA)) {
		return nil, fmt.Errorf("context %q holds no certificate in ca", c.Name)
	}
	return pool, nil
}
