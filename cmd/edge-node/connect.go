package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/wire"
)

// dialWithin bounds the wait for the first node that answers.
const dialWithin = 10 * time.Second

// errNoAnswer is that no node has let a command in, and why is not known.
var errNoAnswer = errors.New("no answer")

// userFlags are who a command speaks as, from the flags that such commands share.
type userFlags struct {
	app    string
	name   string
	token  string
	region string
}

// flags adds the flags of a command that speaks as a user of an app.
func (u *userFlags) flags(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVar(&u.app, "app", "", "app (tenant) to work in (default: that of the context)")
	cmd.Flags().StringVar(&u.token, "token", "", "use this token instead of minting one with the context's key")
	cmd.Flags().StringVar(&u.region, "region", "", "region whose nodes to talk to first (default: that of the context's first node)")
	must(cmd.RegisterFlagCompletionFunc("region", a.fromContext((*home.Context).Regions)))
	must(cmd.RegisterFlagCompletionFunc("app", a.fromContext(appsOf)))
}

// appsOf are the apps that a context has keys of.
func appsOf(mesh *home.Context) []string { return slices.Sorted(maps.Keys(mesh.Keys)) }

// fromContext completes a flag with what the context knows.
func (a *app) fromContext(names func(*home.Context) []string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		mesh, err := home.Load(a.homeOrDefault(), a.context)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(mesh), cobra.ShellCompDirectiveNoFileComp
	}
}

// mesh loads the context of a command.
func (a *app) mesh() (*home.Context, error) {
	if a.data != "" {
		return localMesh(a.data)
	}
	return home.Load(a.home, a.context)
}

// appOf is the app to work in.
func (u *userFlags) appOf(mesh *home.Context) string {
	if u.app != "" {
		return u.app
	}
	return mesh.App
}

// mint returns what makes tokens of an app for each new connection.
func mint(mesh *home.Context, app string, claims edge.Claims) (func(context.Context) (string, error), error) {
	k, ok := mesh.Keys[app]
	if !ok {
		return nil, fmt.Errorf("context %q has no key of app %q, only of %s", mesh.Name, app, strings.Join(appsOf(mesh), ", "))
	}
	return func(context.Context) (string, error) {
		claims := claims
		claims.Expires = time.Now().Add(wire.TokenLife)
		return edge.Mint(edge.Key{ID: k.ID, App: app, Secret: k.Secret}, claims)
	}, nil
}

// tokens returns what gives the command its tokens.
func (u *userFlags) tokens(mesh *home.Context, claims edge.Claims) (func(context.Context) (string, error), error) {
	if u.token != "" {
		if err := readToken(u.token).check("", u.app, time.Now()); err != nil {
			return nil, err
		}
		return func(context.Context) (string, error) { return u.token, nil }, nil
	}
	tokens, err := mint(mesh, u.appOf(mesh), claims)
	if err != nil {
		return nil, fmt.Errorf("%w: name one of these, or pass --token", err)
	}
	return tokens, nil
}

// connection is what a client needs to know beside the mesh.
type connection struct {
	addrs    []string
	token    func(context.Context) (string, error)
	inFlight int
	log      *slog.Logger
	within   time.Duration // default dialWithin
}

// dial connects to one of the nodes.
func (a *app) dial(ctx context.Context, mesh *home.Context, with connection) (*client.Client, error) {
	roots, err := mesh.Roots()
	if err != nil {
		return nil, err
	}
	if with.within == 0 {
		with.within = dialWithin
	}
	if with.log == nil {
		with.log = slog.New(waitTeller{a.logger().Handler(), a.sayWhy})
	}
	late := fmt.Errorf("%w within %v", errNoAnswer, with.within)
	ctx, cancel := context.WithTimeoutCause(ctx, with.within, late)
	defer cancel()
	c, err := client.Dial(ctx, client.Config{
		Addrs: with.addrs, Token: with.token, RootCAs: roots, ServerName: mesh.ServerName,
		Agent: "edge-node " + buildInfo().Version, InFlight: with.inFlight, Log: with.log, Transport: a.transport,
	})
	if errors.Is(err, late) {
		return nil, a.notLetIn(mesh, with, late, err)
	}
	return c, err
}

// notLetIn says why no node has let a client in: what they said, or else what may be.
func (a *app) notLetIn(mesh *home.Context, with connection, late, err error) error {
	at := strings.Join(with.addrs, ", ")
	var said *wire.Error
	if errors.As(err, &said) {
		return fmt.Errorf("no node at %s lets you in within %v: %w", at, with.within, said)
	}
	hint := ""
	if a.transport != client.WebSocket {
		hint = " If it is, UDP may be blocked on the way: try --transport websocket"
	}
	return fmt.Errorf("no node at %s: %w: is the mesh of context %q running?%s", at, late, mesh.Name, hint)
}

// userConnection is how to connect as a user, to a region's nodes first.
func (a *app) userConnection(u *userFlags, claims edge.Claims) (*home.Context, connection, error) {
	mesh, err := a.mesh()
	if err != nil {
		return nil, connection{}, err
	}
	addrs, err := mesh.AllAddrs(u.region, 0)
	if err != nil {
		return nil, connection{}, err
	}
	token, err := u.tokens(mesh, claims)
	return mesh, connection{addrs: addrs, token: token}, err
}

// dialUser connects as a user.
func (a *app) dialUser(ctx context.Context, u *userFlags, claims edge.Claims) (*client.Client, error) {
	mesh, with, err := a.userConnection(u, claims)
	if err != nil {
		return nil, err
	}
	return a.dial(ctx, mesh, with)
}

// operator are the claims of who looks at the mesh itself.
var operator = edge.Claims{User: "operator", Role: edge.Operator}

// dialOperator connects as an operator, to any node.
func (a *app) dialOperator(ctx context.Context, mesh *home.Context) (*client.Client, error) {
	addrs, err := mesh.AllAddrs("", 0)
	if err != nil {
		return nil, err
	}
	token, err := mint(mesh, directory.SystemApp, operator)
	if err != nil {
		return nil, err
	}
	return a.dial(ctx, mesh, connection{addrs: addrs, token: token})
}
