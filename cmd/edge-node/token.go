package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling/directory"
	"github.com/starling-im/starling/edge"
	"github.com/starling-im/starling/wire"
)

// maxTokenLife is the longest life of a token that any node takes.
const maxTokenLife = 24 * time.Hour

func (a *app) tokenCommand() *cobra.Command {
	var as, app string
	var expires time.Duration
	var actAs, isOperator bool
	cmd := &cobra.Command{
		Use: "token USER", Short: "Mint a token for a user", GroupID: groupChat,
		Long: `Mint a token with the key of an app that the context holds. Whoever has it is
that user until it expires.

With --act-as-any its bearer may speak for every user of the app; with --operator
it is one of the system's own app, and its bearer may look at the mesh.`,
		Example: `  edge-node token alice
  edge-node token carol --expires 15m --json
  edge-node chat lobby --as carol --token "$(edge-node token carol)"`,
		Args: atMostOne,
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && as != "" && as != args[0]:
				return usagef("for %q or for %q? Name one user", args[0], as)
			case len(args) == 1:
				as = args[0]
			case as == "":
				return usagef("for whom? edge-node token USER")
			}
			if expires <= 0 || expires > maxTokenLife {
				return usagef("--expires is %v: more than 0, and at most %v", expires, maxTokenLife)
			}
			mesh, err := a.mesh()
			if err != nil {
				return err
			}
			claims := edge.Claims{User: as, Expires: time.Now().Add(expires)}
			if app == "" {
				app = mesh.App
			}
			if isOperator {
				claims.Role, app = edge.Operator, directory.SystemApp
			}
			if actAs {
				claims.ActAs = "*"
			}
			k, ok := mesh.Keys[app]
			if !ok {
				return fmt.Errorf("context %q has no key of app %q", mesh.Name, app)
			}
			token, err := edge.Mint(edge.Key{ID: k.ID, App: app, Secret: k.Secret}, claims)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(struct {
					Token   string `json:"token"`
					App     string `json:"app"`
					User    string `json:"user"`
					Expires int64  `json:"expires"`
				}{token, app, as, claims.Expires.Unix()})
			}
			_, err = fmt.Fprintln(a.stdout, token)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&as, "as", "", "the user, as with the other commands")
	f.StringVar(&app, "app", "", "app (tenant) of the user (default: that of the context)")
	f.DurationVar(&expires, "expires", wire.TokenLife, "how long the token is good for, at most 24h; nodes with the limits of production take 1h")
	must(cmd.RegisterFlagCompletionFunc("app", a.fromContext(appsOf)))
	f.BoolVar(&actAs, "act-as-any", false, "let the bearer speak for every user of the app")
	f.BoolVar(&isOperator, "operator", false, "let the bearer look at the mesh (app "+directory.SystemApp+")")
	return cmd
}
