package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/starling-im/starling/bench/internal/talk"
)

// mosquittoConfig keeps nothing and lets everyone in; the other limits are
// those that it comes with.
const mosquittoConfig = `per_listener_settings false
allow_anonymous true
persistence false
log_type error
user %s
listener %s 127.0.0.1
certfile %s
keyfile %s
tls_version tlsv1.3
`

// startMosquitto starts the broker that Debian has.
func startMosquitto(ctx context.Context, m *machine, dir string) (*peer, error) {
	path, err := installed("mosquitto", "/usr/sbin/mosquitto")
	if err != nil {
		return nil, err
	}
	return startDebian(ctx, m, dir, "", "as it comes: QoS 0, 1,000 messages unsent per client, then they are dropped", func(host, port string) (*exec.Cmd, error) {
		file := filepath.Join(dir, "mosquitto.conf")
		text := fmt.Sprintf(mosquittoConfig, userName(), port, filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
		return exec.Command(path, "-c", file), os.WriteFile(file, []byte(text), 0o600)
	})
}

// userName is who a server shall stay, that would else become another user.
func userName() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return "mosquitto" // which has no meaning to a server that others than root start
}

// installed finds a program.
func installed(name, usual string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if _, err := os.Stat(usual); err == nil {
		return usual, nil
	}
	return "", fmt.Errorf("%w: Debian's package is %s", errMissing, name)
}

// startDebian starts a server that is no part of the bench, with a certificate
// in the turn's folder. command is called for each start.
func startDebian(ctx context.Context, m *machine, dir, userHost, limits string, command func(host, port string) (*exec.Cmd, error)) (*peer, error) {
	ca, err := writeCertificate(dir)
	if err != nil {
		return nil, err
	}
	addrs, err := freeAddrs(1)
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(addrs[0])
	if err != nil {
		return nil, err
	}
	p := &peer{
		target: talk.Target{Protocol: talk.MQTT, Addr: addrs[0], CA: ca, Name: serverName, UserHost: userHost},
		limits: limits, stop: func() {},
	}
	p.again = func(ctx context.Context) error {
		p.stop()
		cmd, err := command(host, port)
		if err != nil {
			return err
		}
		out := &lastLine{log: io.Discard}
		cmd.Stdout, cmd.Stderr = out, out
		if cmd.Env == nil {
			cmd.Env = partEnv()
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		p.pid, p.stop = cmd.Process.Pid, func() { stopDebian(cmd, ended) }
		if err := awaitTLS(ctx, p.target, ended); err != nil {
			p.stop()
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	return p, p.again(ctx)
}

func stopDebian(cmd *exec.Cmd, ended <-chan struct{}) {
	late := time.AfterFunc(stopWithin, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Process.Signal(os.Interrupt)
	<-ended
}

// awaitTLS waits until a server shakes hands.
func awaitTLS(ctx context.Context, t talk.Target, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	trusting, err := talk.NewDialer(t)
	if err != nil {
		return err
	}
	d := tls.Dialer{Config: trusting.TLS()}
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		c, err := d.DialContext(ctx, "tcp", t.Addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-poll.C:
		case <-ended:
			return errors.New("the server ended")
		case <-ctx.Done():
			return fmt.Errorf("the server is not ready after %v: %w", startWithin, err)
		}
	}
}
