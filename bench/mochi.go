package main

import (
	"context"
	"log/slog"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// serveMochi is an MQTT broker of mochi, until ctx ends: everyone may do
// everything.
func serveMochi(ctx context.Context, s serverSpec, ready func() error) error {
	config, err := serverTLS(s.Dir)
	if err != nil {
		return err
	}
	broker := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := broker.AddHook(new(auth.AllowHook), nil); err != nil {
		return err
	}
	l := listeners.NewTCP(listeners.Config{ID: mochiName, Address: s.Addrs[s.Number], TLSConfig: config})
	if err := broker.AddListener(l); err != nil {
		return err
	}
	if err := broker.Serve(); err != nil {
		return err
	}
	defer broker.Close()
	if err := ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
