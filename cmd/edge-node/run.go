package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
)

func (a *app) runCommand() *cobra.Command {
	var path string
	var join joinOptions
	cmd := &cobra.Command{
		Use: "run", Short: "Run one node of a mesh", GroupID: groupNodes,
		Long: `Run one node of a mesh, until it is interrupted or must not go on.

Its configuration comes from a YAML file, the environment and flags; flags win
over the environment, and that over the file. See "edge-node config" and
docs/reference/config.md. Without --config it is that of the data folder, as
"edge-node cluster init" made it, or as it was made here: with --join and a token
an empty data folder becomes that of a new node of a cluster. The node listens on
one UDP port, for clients, other nodes and gossip, and on the TCP port of the same
number for /healthz and /metrics (HTTPS), and for links where UDP does not get
through. It logs to standard error from the level info on, unless told otherwise.`,
		Example: `  edge-node run --config node.yaml
  edge-node run --data ./fra-1
  edge-node run --data ./iad-1 --region iad --listen 10.0.0.2:7400 --join 10.0.0.1:7400 --token-file token
  STARLING_DATA=/var/lib/starling edge-node run --config /etc/starling/node.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.ownConfig(cmd, path, join)
			if err != nil {
				return err
			}
			if occupied(l.Config.Data) {
				return errOccupied(l.Config.Data)
			}
			a.logLevel = l.Config.LogLevel
			if _, err := a.level(); err != nil {
				return err
			}
			if err := l.Config.Check(); err != nil {
				return err
			}
			bound, err := listen(l.Config.Listen)
			if err != nil {
				return err
			}
			log := a.logger()
			log.Info(fmt.Sprintf("node %s in %s listens on %s, data in %s", l.Config.Node, l.Config.Region, bound.addr(), l.Config.Data))
			for _, doubt := range doubts(l.Config) {
				log.Warn(doubt)
			}
			if doubt := astray(path, l.Config); doubt != "" {
				log.Warn(doubt)
			}
			return runNode(cmd.Context(), l.Config, bound, log)
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "YAML file of the configuration")
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
	settingFlags(cmd.Flags())
	join.flags(cmd.Flags())
	must(cmd.MarkFlagFilename("token-file"))
	completeSettings(cmd)
	return cmd
}

// ownConfig is the configuration of the node to run, which joins a cluster first if it
// is to and has not.
func (a *app) ownConfig(cmd *cobra.Command, path string, join joinOptions) (*loaded, error) {
	l, err := loadConfig(path, os.Environ(), cmd.Flags())
	if err != nil || path != "" {
		return l, err
	}
	if join.join != "" && ownFile(l.Config.Data) == "" {
		if err := a.enroll(cmd.Context(), join, l.Config); err != nil {
			return nil, err
		}
	}
	own := ownFile(l.Config.Data)
	if own == "" && l.Config.Node == "" {
		return nil, nothingThere(l.Config.Data, join)
	}
	return loadConfig(own, os.Environ(), cmd.Flags())
}

// nothingThere says what makes a data folder that of a node.
func nothingThere(dir string, join joinOptions) error {
	if join.token != "" || join.tokenFile != "" {
		return usagef("--token is for a new node: say with --join which node of the cluster lets it in")
	}
	return fmt.Errorf("there is no node in the folder %s: make a cluster with `%s cluster init %s`, join one with --join and --token-file, or name a configuration with --config",
		dir, programName(), dir)
}

// sockets are what a node listens on: one port, on UDP and on TCP.
type sockets struct {
	udp net.PacketConn
	tcp net.Listener
}

func (s sockets) addr() string { return s.udp.LocalAddr().String() }

func (s sockets) close() {
	_ = s.udp.Close()
	_ = s.tcp.Close()
}

// anyPortTries bounds the search for a port that is free on UDP and on TCP.
const anyPortTries = 20

// listen opens both sockets. Port 0 stands for any that both have free.
func listen(addr string) (sockets, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return sockets{}, err
	}
	for try := 1; ; try++ {
		udp, err := net.ListenPacket("udp", addr)
		if err != nil {
			return sockets{}, inUse(addr, err)
		}
		_, got, _ := net.SplitHostPort(udp.LocalAddr().String())
		tcp, err := net.Listen("tcp", net.JoinHostPort(host, got))
		if err == nil {
			return sockets{udp, tcp}, nil
		}
		_ = udp.Close()
		if port != "0" || try == anyPortTries {
			return sockets{}, inUse(addr, err)
		}
	}
}

func inUse(addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port in use: another program listens at %s; choose another port (%w)", addr, err)
	}
	return fmt.Errorf("cannot listen at %s: %w", addr, err)
}

// runNode runs a node over its sockets until ctx ends or it must not go on.
func runNode(ctx context.Context, cfg starling.Config, bound sockets, log *slog.Logger) error {
	admin, err := listenAdmin(cfg.Data)
	if err != nil { // as where the folder's path is too long for a socket
		log.Warn("commands cannot reach this node by --data", "err", err)
	}
	dial, err := dialTCP(cfg.Proxy)
	if err != nil {
		return err
	}
	n, err := starling.New(cfg, starling.Env{Conn: bound.udp, HTTP: bound.tcp, DialTCP: dial, Admin: admin, Log: log, Version: buildInfo().Version})
	if err != nil {
		bound.close()
		if admin != nil {
			_ = admin.Close()
		}
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go giveBack(ctx)
	return n.Run(ctx)
}

// listenAdmin makes the socket by which commands on this machine find the node. One
// that is there is of a process that was killed, unless something answers at it.
func listenAdmin(dir string) (net.Listener, error) {
	if occupied(dir) {
		return nil, errOccupied(dir)
	}
	path := filepath.Join(dir, starling.AdminSocket)
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// occupied reports whether a node runs on a data folder already.
func occupied(dir string) bool {
	c, err := net.Dial("unix", filepath.Join(dir, starling.AdminSocket))
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

func errOccupied(dir string) error {
	return fmt.Errorf("a node runs on the folder %s already: stop that one first, or give this one a folder of its own", dir)
}
