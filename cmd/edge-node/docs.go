package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/starling-im/starling"
)

//go:generate go run . docs ../../docs/reference

func (a *app) docsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "docs DIR", Hidden: true,
		Short: "Write the reference pages that derive from the code",
		Args:  needs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for name, text := range referencePages(cmd.Root()) {
				if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

const generated = "<!-- Written by `go generate ./cmd/edge-node`; change the code, not this page. -->\n\n"

// referencePages returns the pages by the names of their files.
func referencePages(root *cobra.Command) map[string]string {
	return map[string]string{"config.md": configPage(), "cli.md": cliPage(root)}
}

const configIntro = `# Configuration of a node

` + "`edge-node run --config FILE`" + ` reads these keys from a YAML file. Each scalar
can also be set by an environment variable and by a flag; flags win over the
environment, and that over the file. Unknown keys are refused.
` + "`edge-node config check FILE`" + ` says whether a node could start with a file, and
` + "`edge-node config show FILE`" + ` where each value comes from.

| key | type | default | environment | flag | meaning |
|---|---|---|---|---|---|
`

func configPage() string {
	var b strings.Builder
	b.WriteString(generated + configIntro)
	defaults := reflect.ValueOf(starling.DefaultConfig())
	for _, s := range settings() {
		env, flag, value := "", "", ""
		if s.scalar() {
			env, flag = "`"+s.env()+"`", "`--"+s.flag()+"`"
			if v := valueOf(defaults, s.Key); !v.IsZero() {
				value = fmt.Sprintf("`%v`", v)
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", s.Key, kindName(s.Kind), value, env, flag, s.Help)
	}
	b.WriteString("\n## Elements of lists\n\n| key | type | meaning |\n|---|---|---|\n")
	elementRows(&b, reflect.TypeFor[starling.Config](), "")
	return b.String()
}

// elementRows describes the structs that lists of t consist of.
func elementRows(b *strings.Builder, t reflect.Type, prefix string) {
	for f := range fields(t) {
		if f.Type.Kind() != reflect.Slice || f.Type.Elem().Kind() != reflect.Struct {
			continue
		}
		key := prefix + f.Tag.Get("koanf") + "[]"
		for e := range fields(f.Type.Elem()) {
			fmt.Fprintf(b, "| `%s.%s` | %s | %s |\n", key, e.Tag.Get("koanf"), kindName(e.Type.Kind()), e.Tag.Get("help"))
		}
		elementRows(b, f.Type.Elem(), key+".")
	}
}

// valueOf returns the value of a key such as tls.cert.
func valueOf(v reflect.Value, key string) reflect.Value {
	for name := range strings.SplitSeq(key, ".") {
		for f := range fields(v.Type()) {
			if f.Tag.Get("koanf") == name {
				v = v.FieldByIndex(f.Index)
				break
			}
		}
	}
	return v
}

func kindName(k reflect.Kind) string {
	switch k {
	case reflect.Slice:
		return "list"
	case reflect.Int:
		return "number"
	}
	return k.String()
}

func cliPage(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(generated + "# Commands of edge-node\n\n")
	section(&b, root)
	return b.String()
}

// section describes a command, then its subcommands.
func section(b *strings.Builder, c *cobra.Command) {
	if c.Hidden || c.Name() == "help" {
		return
	}
	text := c.Long
	if text == "" {
		text = c.Short
	}
	fmt.Fprintf(b, "## %s\n\n```\n%s\n```\n\n", c.CommandPath(), strings.TrimSpace(text))
	if c.Runnable() {
		fmt.Fprintf(b, "Usage: `%s`\n\n", c.UseLine())
	}
	if c.Example != "" {
		fmt.Fprintf(b, "```sh\n%s\n```\n\n", strings.ReplaceAll(strings.TrimPrefix(c.Example, "  "), "\n  ", "\n"))
	}
	flags := c.LocalFlags()
	if !c.HasParent() {
		flags = c.PersistentFlags()
	}
	flagTable(b, flags)
	for _, sub := range c.Commands() {
		section(b, sub)
	}
}

func flagTable(b *strings.Builder, flags *pflag.FlagSet) {
	var rows strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || f.Name == "version" {
			return
		}
		value := ""
		if f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "false" {
			value = "`" + f.DefValue + "`"
		}
		fmt.Fprintf(&rows, "| `--%s` | %s | %s |\n", f.Name, value, f.Usage)
	})
	if rows.Len() > 0 {
		b.WriteString("| flag | default | meaning |\n|---|---|---|\n" + rows.String() + "\n")
	}
}
