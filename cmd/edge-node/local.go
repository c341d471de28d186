package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/directory"
)

// localWithin bounds the wait for a node on this machine.
const localWithin = 5 * time.Second

// localMesh asks the node whose data is in dir where the mesh is and how to work in
// it, as a context says it of a mesh that dev made.
func localMesh(dir string) (*home.Context, error) {
	c := adminClient(dir, localWithin)
	l, err := askLocal(c)
	for late := time.Now().Add(localWithin); errors.Is(err, errNotReady) && time.Now().Before(late); {
		<-time.After(readyPoll)
		l, err = askLocal(c)
	}
	switch {
	case errors.Is(err, errNotReady):
		return nil, fmt.Errorf("the node of %s does not know its mesh yet: try again in a while", dir)
	case err != nil:
		return nil, noNode(dir, err)
	}
	return localContext(dir, l), nil
}

// adminClient speaks to the node whose data is in dir, whatever the host of an address;
// within bounds each question, 0 does not.
func adminClient(dir string, within time.Duration) *http.Client {
	path := filepath.Join(dir, starling.AdminSocket)
	return &http.Client{Timeout: within, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}

// noNode is the error where no node answers at the socket in dir.
func noNode(dir string, err error) error {
	return fmt.Errorf("no node runs on %s: start it with `edge-node run --data %s` (%w)", dir, dir, errors.Unwrap(err))
}

// errNotReady is of a node that has just been started.
var errNotReady = errors.New("the node is starting")

func askLocal(c *http.Client) (l starling.Local, err error) {
	answer, err := c.Get("http://node/v1/local")
	if err != nil {
		return l, err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusServiceUnavailable {
		return l, errNotReady
	}
	return l, json.NewDecoder(answer.Body).Decode(&l)
}

// localContext is what a node said, as a context.
func localContext(dir string, l starling.Local) *home.Context {
	mesh := &home.Context{Format: home.Format, Name: dir, Cluster: l.Cluster, CA: l.CA, ServerName: l.ServerName, Keys: map[string]home.Key{}}
	for _, n := range l.Nodes {
		node := home.Node{ID: n.ID, Region: n.Region, Addr: n.Addr}
		if n.ID == l.Node {
			mesh.Nodes = append([]home.Node{node}, mesh.Nodes...) // it is there, others may not be
		} else {
			mesh.Nodes = append(mesh.Nodes, node)
		}
	}
	for _, app := range l.Apps {
		if len(app.Keys) == 0 {
			continue
		}
		mesh.Keys[app.Name] = home.Key{ID: app.Keys[0].ID, Secret: app.Keys[0].Secret}
		if app.Name != directory.SystemApp && mesh.App == "" {
			mesh.App = app.Name
		}
	}
	return mesh
}
