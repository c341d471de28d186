package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// ejabberdConfig lets everyone in over MQTT, and keeps nothing. The rates at
// which the package's own configuration would hold clients back are not in it.
const ejabberdConfig = `hosts: [localhost]
loglevel: error
certfiles: [%q]
auth_method: [anonymous]
anonymous_protocol: login_anon
allow_multiple_connections: true
listen:
  - {port: %s, ip: "127.0.0.1", module: mod_mqtt, tls: true, tls_verify: false, backlog: 1024}
modules:
  mod_mqtt:
    access_publish: {"#": [allow: all]}
    access_subscribe: {"#": [allow: all]}
    max_queue: 5000
    session_expiry: 0
`

// startEjabberd starts the server that Debian has, without its scripts, and
// without a name by which other Erlang programs could find it.
func startEjabberd(ctx context.Context, m *machine, dir string) (*peer, error) {
	if _, err := installed("ejabberd", "/usr/sbin/ejabberdctl"); err != nil {
		return nil, err
	}
	erl, err := installed("erlang-base", "/usr/bin/erl")
	if err != nil {
		return nil, err
	}
	libs, err := filepath.Glob("/usr/lib/*/ejabberd-*/ebin/ejabberd.app")
	if err != nil || len(libs) == 0 {
		return nil, fmt.Errorf("%w: it is not where Debian has it", errMissing)
	}
	lib := filepath.Dir(filepath.Dir(filepath.Dir(libs[0])))
	return startDebian(ctx, m, dir, "localhost", "as it comes, without the rates of the package: QoS 0, 5,000 messages unsent per client", func(_, port string) (*exec.Cmd, error) {
		file, both := filepath.Join(dir, "ejabberd.yml"), filepath.Join(dir, "both.pem")
		if err := joinFiles(both, filepath.Join(dir, certFile), filepath.Join(dir, keyFile)); err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, fmt.Appendf(nil, ejabberdConfig, both, port), 0o600); err != nil {
			return nil, err
		}
		cmd := exec.Command(erl, "-noinput", "+K", "true", "-mnesia", "dir", fmt.Sprintf("%q", filepath.Join(dir, "mnesia")), "-s", "ejabberd")
		cmd.Dir = dir
		cmd.Env = append(partEnv(), "HOME="+dir, "ERL_LIBS="+lib, "EJABBERD_CONFIG_PATH="+file, "EJABBERD_LOG_PATH="+filepath.Join(dir, "ejabberd.log"))
		return cmd, nil
	})
}

// joinFiles writes files into one.
func joinFiles(to string, files ...string) error {
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		all = append(all, b...)
	}
	return os.WriteFile(to, all, 0o600)
}
