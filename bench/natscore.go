package main

import (
	"context"
	"errors"

	"github.com/nats-io/nats-server/v2/server"
)

// serveNATS is a server of NATS without JetStream, until ctx ends. It has the
// limits that it comes with.
func serveNATS(ctx context.Context, s serverSpec, ready func() error) error {
	config, err := serverTLS(s.Dir)
	if err != nil {
		return err
	}
	o := &server.Options{ServerName: natsName, NoSigs: true, NoLog: true, TLSConfig: config, TLSTimeout: startWithin.Seconds()}
	if o.Host, o.Port, err = hostPort(s.Addrs[s.Number]); err != nil {
		return err
	}
	n, err := server.NewServer(o)
	if err != nil {
		return err
	}
	n.Start()
	defer func() { n.Shutdown(); n.WaitForShutdown() }()
	if !n.ReadyForConnections(startWithin) {
		return errors.New("the NATS server is not ready for connections")
	}
	if err := ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}
