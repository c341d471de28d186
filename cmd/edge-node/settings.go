package main

import (
	"cmp"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/providers/structs"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/starling-im/starling"
	"github.com/starling-im/starling/geo"
)

// A setting is one key of a node's configuration.
type setting struct {
	Key  string // such as tls.cert
	Help string
	Kind reflect.Kind
}

// env is the environment variable that sets a key; lists have none.
func (s setting) env() string {
	if !s.scalar() {
		return ""
	}
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.Key, ".", "_"))
}

// flag is the flag that sets a key; lists have none.
func (s setting) flag() string {
	if !s.scalar() {
		return ""
	}
	return strings.NewReplacer(".", "-", "_", "-").Replace(s.Key)
}

func (s setting) scalar() bool { return s.Kind != reflect.Slice }

const envPrefix = "STARLING_"

// settings lists every key of starling.Config in its order.
func settings() []setting { return settingsOf(reflect.TypeFor[starling.Config](), "", "") }

// settingsOf lists the keys of a struct that is at a prefix, and that has a
// help of its own for keys that have none.
func settingsOf(t reflect.Type, prefix, help string) (all []setting) {
	for f := range fields(t) {
		key := prefix + f.Tag.Get("koanf")
		if f.Type.Kind() == reflect.Struct {
			all = append(all, settingsOf(f.Type, key+".", f.Tag.Get("help"))...)
			continue
		}
		all = append(all, setting{key, cmp.Or(f.Tag.Get("help"), help), f.Type.Kind()})
	}
	return all
}

// fields yields the fields of a struct that the configuration knows.
func fields(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if f := t.Field(i); f.Tag.Get("koanf") != "" && !yield(f) {
				return
			}
		}
	}
}

// settingFlags adds a flag for each key that has one. Their defaults are those
// of the configuration; only a flag that is given counts.
func settingFlags(flags *pflag.FlagSet) {
	defaults := koanf.New(".")
	must(defaults.Load(structs.Provider(starling.DefaultConfig(), "koanf"), nil))
	for _, s := range settings() {
		help := fmt.Sprintf("%s ($%s)", s.Help, s.env())
		switch {
		case s.flag() == "" || s.flag() == "log-level": // every command has that one
		case s.Kind == reflect.Bool:
			flags.Bool(s.flag(), defaults.Bool(s.Key), help)
		case s.Kind == reflect.Int:
			flags.Int(s.flag(), defaults.Int(s.Key), help)
		default:
			flags.String(s.flag(), defaults.String(s.Key), help)
		}
	}
}

// completeSettings completes the flags of settings that have few values, or
// that name files.
func completeSettings(cmd *cobra.Command) {
	for flag, values := range map[string][]string{
		"survive":      {string(geo.SurviveRegion), string(geo.SurviveNode), string(geo.SurviveNone)},
		"reachability": {starling.ReachFull, starling.ReachOutbound},
		"limits":       {starling.Production, starling.Bench},
	} {
		must(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
	}
	must(cmd.MarkFlagDirname("data"))
}

// Where a value came from, the weakest source first.
const (
	fromDefault = "default"
	fromFile    = "file"
	fromEnv     = "env"
	fromFlag    = "flag"
)

// loaded is a configuration and where each key's value came from.
type loaded struct {
	Config starling.Config
	values *koanf.Koanf
	from   map[string]string
}

// loadConfig puts a configuration together: flags over environment over file
// over defaults. path = "" means no file, environ is that of os.Environ.
func loadConfig(path string, environ []string, flags *pflag.FlagSet) (*loaded, error) {
	l := &loaded{values: koanf.New("."), from: make(map[string]string)}
	if err := l.add(fromDefault, structs.Provider(starling.DefaultConfig(), "koanf"), nil); err != nil {
		return nil, err
	}
	if path != "" {
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
		if err := l.add(fromFile, file.Provider(path), yaml.Parser()); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	byEnv, byFlag := map[string]string{}, map[string]string{}
	for _, s := range settings() {
		byEnv[s.env()], byFlag[s.flag()] = s.Key, s.Key
	}
	delete(byEnv, "")
	delete(byFlag, "")
	variables := env.Provider(".", env.Opt{
		Prefix:        envPrefix,
		TransformFunc: func(k, v string) (string, any) { return byEnv[k], v },
		EnvironFunc:   func() []string { return environ },
	})
	if err := l.add(fromEnv, variables, nil); err != nil {
		return nil, err
	}
	given := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.Visit(func(f *pflag.Flag) { given.AddFlag(f) })
	if err := l.add(fromFlag, posflag.ProviderWithFlag(given, ".", nil, func(f *pflag.Flag) (string, any) {
		return byFlag[f.Name], posflag.FlagVal(given, f)
	}), nil); err != nil {
		return nil, err
	}
	return l, l.decode(path)
}

// add lays a source over those before.
func (l *loaded) add(from string, p koanf.Provider, parser koanf.Parser) error {
	layer := koanf.New(".")
	if err := layer.Load(p, parser); err != nil {
		return err
	}
	for _, key := range layer.Keys() {
		l.from[key] = from
	}
	return l.values.Merge(layer)
}

// decode fills Config and refuses keys that it does not have.
func (l *loaded) decode(path string) error {
	var read mapstructure.Metadata
	err := l.values.UnmarshalWithConf("", &l.Config, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result: &l.Config, TagName: "koanf", WeaklyTypedInput: true, Metadata: &read,
	}})
	switch {
	case err != nil:
		_, text, found := strings.Cut(err.Error(), "following error(s):\n\n")
		if !found {
			text = err.Error()
		}
		return &starling.ConfigError{Field: l.source(text, cmp.Or(path, "file")), Problem: "does not fit: " + text}
	case len(read.Unused) > 0:
		slices.Sort(read.Unused)
		return &starling.ConfigError{Field: cmp.Or(path, "file"), Problem: fmt.Sprintf("has the unknown key %q", read.Unused[0])}
	}
	return nil
}

// writeConfig returns a configuration as the YAML that loadConfig reads.
func writeConfig(cfg starling.Config) ([]byte, error) {
	k := koanf.New(".")
	if err := k.Load(structs.Provider(cfg, "koanf"), nil); err != nil {
		return nil, err
	}
	return k.Marshal(yaml.Parser())
}

// source is what the value came from that an error of decoding begins with: a variable of
// the environment, or else the file.
func (l *loaded) source(text, file string) string {
	for _, s := range settings() {
		if l.from[s.Key] == fromEnv && strings.HasPrefix(text, "'"+s.Key+"' ") {
			return "$" + s.env()
		}
	}
	return file
}
