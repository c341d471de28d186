package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/geo"
	"github.com/starling-im/starling/identity"
	"github.com/starling-im/starling/wire"
)

// Why a region is not added to a cluster, besides what a node answers.
var (
	errNoRoot      = errors.New("the root of the cluster is not there")
	errRegionThere = errors.New("the region is there already")
	errNoSigner    = errors.New("not the data folder of a node that signs certificates")
)

// newRegion is what cluster region is asked for.
type newRegion struct {
	region, data, offline string
	again                 bool
}

func (a *app) clusterRegionCommand() *cobra.Command {
	r := newRegion{}
	cmd := &cobra.Command{
		Use: "region REGION", Short: "Add a region to a cluster",
		Long: `Add a region to a cluster: the root, which was moved away when the cluster was made,
signs an authority for it, and the node of --data signs certificates of its nodes from now
on. That must be one that signs already; it may run, or not. Bring the folder of the root
back for this, name it with --offline, and take it away again. Then nodes of the region
come in with tokens, and "edge-node groups add" makes groups for rooms that are at home there.

With --again the region may be there: the node gets a new authority of it, where the last
one that signed is lost, or before the old one ends after five years.`,
		Example: `  edge-node cluster region sin --data ./fra-1
  edge-node cluster region sin --data ./fra-1 --offline /media/drawer
  edge-node join-token create --data ./fra-1 --region sin`,
		Args:              needs("REGION"),
		ValidArgsFunction: cobra.FixedCompletions(geo.Pops().Regions(), cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.region, r.data = args[0], a.data
			if err := identity.CheckName("region", r.region); err != nil {
				return usagef("REGION: %v", err)
			}
			if r.data == "" {
				return usagef("which node is to sign for it? Say --data FOLDER for one on this machine")
			}
			return a.addRegion(cmd.Context(), r)
		},
	}
	cmd.Flags().StringVar(&r.offline, "offline", "", "folder of the root (default: offline in that of --data, where cluster init made it)")
	cmd.Flags().BoolVar(&r.again, "again", false, "the region may be there: make a new authority of it")
	must(cmd.MarkFlagDirname("offline"))
	return cmd
}

func (a *app) addRegion(ctx context.Context, r newRegion) error {
	dir := cmp.Or(r.offline, filepath.Join(r.data, offlineFolder))
	root, err := loadAuthority(dir, "root")
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s has no root.crt and root.key; bring back the folder that `cluster init` said to move away, and name it with --offline", errNoRoot, dir)
	}
	if err != nil {
		return err
	}
	authority, err := root.ForRegion(r.region, time.Now())
	if err != nil {
		return err
	}
	running, err := r.give(ctx, authority)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Cluster string `json:"cluster"`
			Region  string `json:"region"`
			Data    string `json:"data"`
			Running bool   `json:"running"` // whether the node took it, or will when it starts
		}{root.Cluster(), r.region, r.data, running})
	}
	when := "signs"
	if !running {
		when = "will sign, once it is started,"
	}
	_, err = fmt.Fprintf(a.stdout, `The region %s is added: the node of %s %s for its nodes. Take %s away again.

Then, for each node of it:

  %s join-token create --data %s --region %s
`, r.region, r.data, when, dir, programName(), r.data, r.region)
	return err
}

// give hands an authority to the node of r.data, which runs or does not.
func (r newRegion) give(ctx context.Context, authority *identity.Authority) (running bool, err error) {
	key, err := authority.KeyPEM()
	if err != nil {
		return false, err
	}
	body, err := json.Marshal(starling.NewRegion{Chain: string(authority.PEM()), Key: string(key), Again: r.again})
	if err != nil {
		return false, err
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://node/v1/region", bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	answer, err := adminClient(r.data, 2*localWithin).Do(q)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED): // no socket, or that of a process that was killed
		return false, r.keep(authority)
	case err != nil:
		return false, err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusNoContent {
		return true, nil
	}
	var e wire.Error
	if err := json.NewDecoder(answer.Body).Decode(&e); err != nil {
		return false, fmt.Errorf("the node of %s does not take regions: %s", r.data, answer.Status)
	}
	return false, &e
}

// keep puts an authority into the data folder of a node that does not run, and has
// others.
func (r newRegion) keep(authority *identity.Authority) error {
	dir := filepath.Join(r.data, starling.SignerFolder)
	keys, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return fmt.Errorf("%w: %s; one whose data were made by `cluster init`, or that came in with a token of `join-token create --signer`, is", errNoSigner, r.data)
	}
	text, err := os.ReadFile(filepath.Join(r.data, "ca.crt"))
	if err != nil {
		return err
	}
	chain, err := identity.ParseChain(text)
	if err != nil {
		return err
	}
	if err := authority.Under(chain[0]); err != nil {
		return err
	}
	_, err = os.Stat(filepath.Join(dir, r.region+".key"))
	if err == nil && !r.again {
		return fmt.Errorf("%w: %s signs for %s", errRegionThere, r.data, r.region)
	}
	return saveAuthority(dir, r.region, authority)
}
