package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// startJetStream returns what starts three servers of NATS.
func startJetStream(perRoom bool) func(context.Context, *machine, string, workload) (*cluster, error) {
	return func(ctx context.Context, m *machine, dir string, w workload) (*cluster, error) {
		streams, sender := 1, jetstreamName
		if perRoom {
			streams, sender = w.Rooms, perRoomName
		}
		return startOwn(ctx, m, dir, jetstreamName, sender, w, streams)
	}
}

// serveJetStream is one server of NATS, until ctx ends.
func serveJetStream(ctx context.Context, s serverSpec, ready func() error) error {
	o := &server.Options{
		ServerName: fmt.Sprintf("nats-%d", s.Number), NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: s.Dir,
		SyncAlways: true, // sync_interval: always
		Cluster:    server.ClusterOpts{Name: "bench"},
	}
	var err error
	if o.Host, o.Port, err = hostPort(s.Addrs[s.Number]); err != nil {
		return err
	}
	if o.Cluster.Host, o.Cluster.Port, err = hostPort(s.Links[s.Number]); err != nil {
		return err
	}
	for i, link := range s.Links {
		if i != s.Number {
			o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: link})
		}
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

func hostPort(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	return host, port, err
}

// sendToJetStream makes the streams and sends to them, over one connection to
// each server in turn.
func sendToJetStream(ctx context.Context, s senderSpec) (measured, error) {
	var all []send
	for i := range min(s.Work.Sessions, s.Work.Window) {
		c, err := nats.Connect("nats://" + s.Addrs[i%len(s.Addrs)])
		if err != nil {
			return measured{}, err
		}
		defer c.Close()
		if i == 0 {
			if err := makeStreams(ctx, c, s.Work.Groups, s.Work.Rooms); err != nil {
				return measured{}, err
			}
		}
		send, err := natsSender(c, s.Work)
		if err != nil {
			return measured{}, err
		}
		all = append(all, send)
	}
	return measure(ctx, s.Work, all)
}

// makeStreams makes one stream of all rooms, or one of each.
func makeStreams(ctx context.Context, c *nats.Conn, streams, rooms int) error {
	js, err := jetstream.New(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for i := range streams {
		cfg := jetstream.StreamConfig{
			Name: fmt.Sprintf("rooms-%d", i), Subjects: []string{subject(i)},
			Storage: jetstream.FileStorage, Replicas: 3,
		}
		if streams < rooms {
			cfg.Subjects = []string{"room.*"}
		}
		if err := makeStream(ctx, js, cfg); err != nil {
			return fmt.Errorf("stream %d of %d: %w", i+1, streams, err)
		}
	}
	return nil
}

// tryFor is how long a try may take: servers without a leader say nothing.
const tryFor = 2 * time.Second

// makeStream makes a stream, for which the servers must have a leader first.
func makeStream(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) error {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		try, cancel := context.WithTimeout(ctx, tryFor)
		_, err := js.CreateOrUpdateStream(try, cfg)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return err
		}
	}
}

// pollEvery is the pause before something is tried again that was not ready.
const pollEvery = 50 * time.Millisecond

func subject(room int) string { return fmt.Sprintf("room.%d", room) }

// natsSender publishes as the library's guide has it for many at once:
// asynchronously, each with its own ack.
func natsSender(c *nats.Conn, w workload) (send, error) {
	var mu sync.Mutex
	open := make(map[*nats.Msg]func(error), w.Window)
	ended := func(m *nats.Msg, err error) {
		mu.Lock()
		done := open[m]
		delete(open, m)
		mu.Unlock()
		if done != nil {
			done(err)
		}
	}
	js, err := jetstream.New(c,
		jetstream.WithPublishAsyncMaxPending(w.Window+1), // the window is kept elsewhere
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, m *nats.Msg, _ *jetstream.PubAck) { ended(m, nil) }),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, m *nats.Msg, err error) { ended(m, err) }),
	)
	if err != nil {
		return nil, err
	}
	subjects := make([]string, w.Rooms)
	for i := range subjects {
		subjects[i] = subject(i)
	}
	content := make([]byte, w.Size)
	return func(room int, done func(error)) {
		m := &nats.Msg{Subject: subjects[room], Data: content}
		mu.Lock()
		open[m] = done
		mu.Unlock()
		if _, err := js.PublishMsgAsync(m); err != nil {
			ended(m, err)
		}
	}, nil
}
