package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) monitorCommand() *cobra.Command {
	var level string
	cmd := &cobra.Command{
		Use: "monitor", Short: "Follow the log of a node on this machine", GroupID: groupMesh,
		Long: `Follow the log of the node of --data as it is written, until Ctrl-C or until the node
ends. The level is that of this command alone: what the node itself logs, and where, stays
as it is, and it writes what nobody else sees only while somebody follows. Where lines come
faster than they are taken, some are left out, and a line says how many.`,
		Example: "  edge-node monitor --data ./fra-1\n  edge-node monitor --data ./fra-1 --level debug\n  edge-node monitor --data ./fra-1 --level warn --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case a.data == "":
				return usagef("which node? Say --data FOLDER for one that runs on this machine")
			case !slices.Contains(levels, level):
				return usagef("--level is %q, not one of %s", level, strings.Join(levels, ", "))
			}
			return a.monitor(cmd.Context(), level)
		},
	}
	cmd.Flags().StringVar(&level, "level", "info", "from this level on: debug, info, warn, error")
	must(cmd.RegisterFlagCompletionFunc("level", cobra.FixedCompletions(levels, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// monitor prints what the node of --data logs until ctx or the node ends.
func (a *app) monitor(ctx context.Context, level string) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/v1/log?level="+level, nil)
	if err != nil {
		return err
	}
	c := adminClient(a.data, 0)
	answer, err := c.Do(q)
	if err != nil {
		return noNode(a.data, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return fmt.Errorf("the node of %s does not show its log: %s", a.data, bytes.TrimSpace(why))
	}
	lines := bufio.NewReader(answer.Body)
	for {
		line, err := lines.ReadBytes('\n')
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("the node of %s has ended", a.data)
		case err != nil:
			return err
		}
		if err := a.printLog(line); err != nil {
			return err
		}
	}
}

// printLog prints a line of a node's log as the node would.
func (a *app) printLog(line []byte) error {
	if a.json {
		_, err := a.stdout.Write(line)
		return err
	}
	r, err := readLog(line)
	if err != nil {
		return fmt.Errorf("a line of the log is none: %w", err)
	}
	return slog.NewTextHandler(a.stdout, &slog.HandlerOptions{Level: slog.LevelDebug}).Handle(context.Background(), r)
}

// readLog reads a line of JSON back into what was logged, its attributes in their order.
func readLog(line []byte) (slog.Record, error) {
	var head struct {
		Time  time.Time
		Level slog.Level
		Msg   string
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return slog.Record{}, err
	}
	r := slog.NewRecord(head.Time, head.Level, head.Msg, 0)
	d := json.NewDecoder(bytes.NewReader(line))
	_, err := d.Token() // the opening brace
	for err == nil && d.More() {
		var key json.Token
		var value json.RawMessage
		if key, err = d.Token(); err == nil {
			err = d.Decode(&value)
		}
		name, _ := key.(string)
		if name == slog.TimeKey || name == slog.LevelKey || name == slog.MessageKey {
			continue
		}
		var text string
		if json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		r.AddAttrs(slog.String(name, text))
	}
	return r, err
}
