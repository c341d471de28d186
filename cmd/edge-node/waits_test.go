package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/starling-im/starling/client"
	"github.com/starling-im/starling/wire"
)

// noSession is what the client logs when two nodes have no place, or are away.
func noSession(log *slog.Logger, full bool) {
	err := errors.New("a:1 is away")
	if full {
		said := wire.Errorf(wire.CodeTooMany, "user %q has 16 connections already", "many")
		err = errors.Join(fmt.Errorf("a:1: %w", said), fmt.Errorf("b:1: %w", said))
	}
	log.Info("no session", "why", err, "full", full)
}

// Why there is no place is told once; what else there is to log goes by its level.
func TestWaitsAreTold(t *testing.T) {
	var out bytes.Buffer
	a := &app{stderr: &out, logLevel: "warn"}
	log := slog.New(waitTeller{a.logger().Handler(), a.sayWhy})
	noSession(log, false)
	noSession(log, true)
	noSession(log, true)
	if want := "edge-node: waiting: too_many: user \"many\" has 16 connections already\n"; out.String() != want {
		t.Errorf("said %q, want %q", out.String(), want)
	}
}

// The status line has it; before there is one it is told on standard error.
func TestWaitsOnTheScreen(t *testing.T) {
	var early []string
	state := &linkState{early: func(why string) { early = append(early, why) }}
	noSession(state.logger(), false)
	noSession(state.logger(), true)
	s, _ := newTestScreen()
	s.transport = client.WebSocket
	state.listen(func(text string) { s.Update(linkMsg{text}) })
	noSession(state.logger(), true)
	if shown := s.View().Content; len(early) != 1 || !strings.Contains(shown, "fra-1 (fra)  waiting: too_many") {
		t.Errorf("told early: %q; the screen shows\n%s", early, shown)
	}
	state.logger().Info("session")
	if shown := s.View().Content; !strings.Contains(shown, "connected over websocket") {
		t.Errorf("back again the screen shows\n%s", shown)
	}
}
