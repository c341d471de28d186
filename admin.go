package starling

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"time"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/identity"
)

// AdminSocket is the name of the socket in a node's data folder at which commands on
// the same machine find it. Whoever may open it may do anything in the mesh.
const AdminSocket = "admin.sock"

// Local is what a node tells commands on its own machine: where the mesh is, whom to
// trust there, and with which keys to make tokens.
type Local struct {
	Cluster    string           `json:"cluster"`
	Node       string           `json:"node"`
	ServerName string           `json:"server_name"`
	CA         string           `json:"ca"` // PEM
	Nodes      []directory.Node `json:"nodes"`
	Apps       []directory.App  `json:"apps"`
}

func (n *Node) local() Local {
	root := n.credentials.identity().Root
	l := Local{
		Cluster: n.cfg.Cluster, Node: n.cfg.Node, ServerName: identity.ServerName(n.cfg.Cluster),
		CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})),
	}
	s := n.dir.state()
	for _, d := range s.Nodes() {
		if m, ok := n.mesh.View().Member(d.ID); ok && m.Addr != "" {
			d.Addr = m.Addr
		}
		l.Nodes = append(l.Nodes, directory.Node{ID: d.ID, Region: d.Region, Addr: d.Addr})
	}
	l.Apps = s.Apps()
	return l
}

// serveAdmin serves GET /v1/local and GET /v1/log on the admin socket until ctx ends.
func (n *Node) serveAdmin(ctx context.Context) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/local", func(w http.ResponseWriter, _ *http.Request) {
		if n.dir.state().Version() == 0 {
			http.Error(w, "the node does not know the directory yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(n.local())
	})
	mux.HandleFunc("GET /v1/log", n.serveLog)
	server := &http.Server{Handler: mux, MaxHeaderBytes: httpHeader, ReadTimeout: httpRead, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(n.env.Admin); !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		n.log.Error("the admin socket failed", "err", err)
	}
}
