package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build says what this binary was made of.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func buildInfo() build {
	b := build{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Say which release this is",
		Long:    "Say which release this is, from which commit, built by which Go for which platform.",
		Example: "  edge-node version\n  edge-node version --json",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			b := buildInfo()
			if a.json {
				return a.printJSON(b)
			}
			fmt.Fprintf(a.stdout, "edge-node %s\n", b.Version)
			if b.Revision != "" {
				changed := ""
				if b.Modified {
					changed = " with changes"
				}
				fmt.Fprintf(a.stdout, "commit %s of %s%s\n", b.Revision, b.Time, changed)
			}
			fmt.Fprintf(a.stdout, "%s on %s\n", b.Go, b.Platform)
			return nil
		},
	}
}
