package main

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/starling-im/starling/cmd/edge-node/internal/home"
	"github.com/starling-im/starling/identity"
)

// nodeFile is a node's configuration in its data folder, where run finds it.
const nodeFile = "node.yaml"

// loadAuthority reads DIR/NAME.crt and .key; fs.ErrNotExist if one is missing.
func loadAuthority(dir, name string) (*identity.Authority, error) {
	chain, err := os.ReadFile(filepath.Join(dir, name+".crt"))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(filepath.Join(dir, name+".key"))
	if err != nil {
		return nil, err
	}
	return identity.Load(chain, key)
}

// saveAuthority writes what loadAuthority reads. The key comes last: nodes look for it.
func saveAuthority(dir, name string, a *identity.Authority) error {
	key, err := a.KeyPEM()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name+".key")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(
		os.MkdirAll(dir, 0o700),
		home.WriteFile(filepath.Join(dir, name+".crt"), a.PEM()),
		home.WriteFile(path, key),
	)
}

// nodeKey loads or makes the private key that a node keeps for life, in its data
// folder.
func nodeKey(dir string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, "node.key")
	text, err := os.ReadFile(path)
	if err == nil {
		return parseKey(path, text)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	if text, err = identity.EncodeKey(key); err != nil {
		return nil, err
	}
	return key, errors.Join(os.MkdirAll(dir, 0o700), home.WriteFile(path, text))
}

func parseKey(path string, text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds another key than one of ECDSA", path)
	}
	return ec, nil
}

// publicKey is a node's public key as the configuration and the directory have it.
func publicKey(key *ecdsa.PrivateKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	return base64.StdEncoding.EncodeToString(der), err
}

func encodeSecret(b []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(b) + "\n") }
