package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Check or show the configuration of a node", GroupID: groupNodes,
		Long: `Check or show the configuration of a node. It comes from a YAML file, from the
environment ($STARLING_NODE sets the key node, $STARLING_TLS_CERT tls.cert) and
from flags; flags win over the environment, and that over the file. All keys are
listed in docs/reference/config.md.`,
		Example: "  edge-node config check node.yaml\n  edge-node config show node.yaml --json",
		Args:    noCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.configCheckCommand(), a.configShowCommand())
	return cmd
}

func (a *app) configCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check FILE", Short: "Say whether a node could start with this configuration",
		Long: `Say whether a node could start with this configuration: every key is known,
every value has its type, the whole makes sense, the certificate is this node's
and good under the CA, and the data can be kept where it says. Nothing is started
or written. Too few peers for what rooms shall survive, and regions that wan has
no measurements of, are worth a warning on standard error; the exit status is 0
all the same.`,
		Example: "  edge-node config check node.yaml && edge-node run --config node.yaml",
		Args:    needs("FILE"), ValidArgsFunction: completeFile("yaml", "yml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := loadConfig(args[0], os.Environ(), cmd.Flags())
			if err == nil {
				err = checkNode(l.Config)
			}
			if err != nil {
				return err
			}
			for _, doubt := range doubts(l.Config) {
				a.warn(doubt)
			}
			if a.json {
				return a.printJSON(struct {
					OK   bool   `json:"ok"`
					Node string `json:"node"`
				}{true, l.Config.Node})
			}
			_, err = fmt.Fprintf(a.stdout, "%s is fine: node %s in %s\n", args[0], l.Config.Node, l.Config.Region)
			return err
		},
	}
	settingFlags(cmd.Flags())
	completeSettings(cmd)
	return cmd
}

func (a *app) configShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show [FILE]", Short: "Show every value and where it came from",
		Long: `Show the value of every key and where it came from: default, file, env or flag.
The secrets of apps are left out.`,
		Example: "  edge-node config show node.yaml\n  STARLING_LIMITS=bench edge-node config show node.yaml --json",
		Args:    atMostOne, ValidArgsFunction: completeFile("yaml", "yml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := ""
			if len(args) == 1 {
				path = args[0]
			}
			l, err := loadConfig(path, os.Environ(), cmd.Flags())
			if err != nil {
				return err
			}
			return a.showConfig(l)
		},
	}
	settingFlags(cmd.Flags())
	completeSettings(cmd)
	return cmd
}

// shown is a value of the configuration as `config show --json` has it.
type shown struct {
	Value any    `json:"value"`
	From  string `json:"from"`
}

func (a *app) showConfig(l *loaded) error {
	values := make(map[string]shown)
	w := tabwriter.NewWriter(a.stdout, 0, 0, 3, ' ', 0)
	for _, s := range settings() {
		v := shown{l.values.Get(s.Key), l.from[s.Key]}
		switch s.Key {
		case "apps":
			v.Value = withoutSecrets(l.Config.Apps)
		case "proxy":
			if u, err := url.Parse(l.Config.Proxy); err == nil {
				v.Value = u.Redacted()
			}
		case "peers":
			v.Value = l.Config.Peers
		case "costs":
			v.Value = l.Config.Costs
		}
		values[s.Key] = v
		if !a.json {
			text := fmt.Sprint(v.Value)
			if !s.scalar() {
				list, err := json.Marshal(v.Value)
				if err != nil {
					return err
				}
				text = string(list)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", s.Key, v.From, text)
		}
	}
	if a.json {
		return a.printJSON(values)
	}
	return w.Flush()
}

// withoutSecrets is what may be shown of apps.
func withoutSecrets(apps []starling.App) []map[string]any {
	all := []map[string]any{}
	for _, app := range apps {
		keys := []string{}
		for _, k := range app.Keys {
			keys = append(keys, k.ID)
		}
		all = append(all, map[string]any{"name": app.Name, "open": app.Open, "homes": app.Homes, "keys": keys})
	}
	return all
}
