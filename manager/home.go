package manager

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/transport"
)

// The files of a home.
const (
	keyFile      = "key.pem"      // the private key, 0600
	pendingFile  = "login.key"    // the key of a login that was begun and has not ended
	identityFile = "identity.pem" // the user's certificate and its issuing chain (identity §4)
	rootFile     = "root.pem"     // the pinned roots
	configFile   = "config.json"
	lockName     = "lock" // locked while files are read or written; always empty
)

const maxFileBytes = 64 << 10

// config is config.json.
type config struct {
	Hosts  []string         `json:"hosts"` // HOST or HOST:PORT, the one that was used first
	Ports  []transport.Port `json:"ports"`
	Domain string           `json:"domain"`
	User   string           `json:"user"`
	Good   []good           `json:"good,omitempty"` // newest first

	Measured *measured `json:"measured,omitempty"` // nil: never
}

// measured says when the relays were measured from here, and which.
type measured struct {
	At     time.Time `json:"at"`
	Relays []string  `json:"relays"`
}

// good is an address that worked.
type good struct {
	Host string         `json:"host"`
	Addr netip.AddrPort `json:"addr"`
}

// state is all that a home holds.
type state struct {
	key    crypto.Signer
	chain  []*x509.Certificate
	roots  *identity.Roots
	config config
}

// certificate is what the state's owner shows in TLS.
func (s state) certificate() *tls.Certificate {
	c := &tls.Certificate{PrivateKey: s.key, Leaf: s.chain[0]}
	for _, cert := range s.chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// home is the directory of an account. Processes that share it take turns with the lock.
type home string

func (h home) path(name string) string { return filepath.Join(string(h), name) }

// create makes the directory if there is none.
func (h home) create() error {
	if _, err := os.Stat(string(h)); errors.Is(err, fs.ErrNotExist) {
		return asUsage(durable.OpenDir(string(h)))
	}
	return nil
}

// lock waits for the other processes and checks that the directory is private. A missing one is fs.ErrNotExist.
func (h home) lock() (io.Closer, error) {
	root, err := os.OpenRoot(string(h)) // so that a planted link leads nowhere
	if err != nil {
		return nil, fmt.Errorf("open home: %w", err)
	}
	defer root.Close()
	f, err := root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open home: %w", err)
	}
	if err = lockFile(f); err == nil {
		// Under the lock, because it removes the unfinished files of others.
		err = durable.OpenDir(string(h))
	}
	if err != nil {
		f.Close()
		return nil, asUsage(err)
	}
	return f, nil
}

// load reads everything and checks that it fits together. What is missing, or left from a login that was cut off, is
// reason not-logged-in.
func (h home) load() (state, error) {
	unlock, err := h.lock()
	if err != nil {
		return state{}, notLoggedIn(err)
	}
	defer unlock.Close()
	s, err := h.read()
	if err != nil {
		return state{}, notLoggedIn(err)
	}
	return s, s.check()
}

// read does no checks beyond each file alone. The config goes first: its absence is the plainest sign of no login.
func (h home) read() (s state, err error) {
	if s.config, err = h.readConfig(); err != nil {
		return s, err
	}
	if s.key, err = h.readKey(keyFile); err != nil {
		return s, err
	}
	if s.chain, err = readPEM(h, identityFile, identity.ParseChain); err != nil {
		return s, err
	}
	s.roots, err = h.readRoots()
	return s, err
}

// readKey reads a private key, which durable refuses when others could read it as well.
func (h home) readKey(name string) (crypto.Signer, error) {
	return readPEM(h, name, identity.ParseKey)
}

// readRoots reads the pinned roots. They are no secret, but who could change them could be the server: they are guarded like
// the key.
func (h home) readRoots() (*identity.Roots, error) {
	return readPEM(h, rootFile, identity.ParseRoots)
}

// readPEM reads a file and parses it; errors name the file, and a missing one stays fs.ErrNotExist.
func readPEM[T any](h home, name string, parse func([]byte) (T, error)) (value T, err error) {
	b, err := durable.ReadPrivate(h.path(name), maxFileBytes)
	if err == nil {
		value, err = parse(b)
	}
	if err != nil {
		err = fmt.Errorf("read %s: %w", h.path(name), err)
	}
	return value, err
}

// readConfig is strict: an unknown key is a typing mistake of somebody who edits it.
func (h home) readConfig() (c config, err error) {
	return readPEM(h, configFile, func(b []byte) (c config, err error) {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err = d.Decode(&c); err == nil && len(c.Hosts) == 0 {
			err = errors.New("it names no hosts")
		}
		return c, err
	})
}

// check wants one account, whole: dates are the server's to judge.
func (s state) check() error {
	peer, err := identity.VerifyIgnoringDates(s.chain, s.roots, identity.KindUser)
	if err == nil && peer.Name != identity.UserName(s.config.Domain, s.config.User) {
		err = errors.New("identity.pem is of another user than config.json")
	}
	if err == nil {
		err = owns(s.key, peer)
	}
	if err != nil {
		return fail(NotLoggedIn, "read account", err)
	}
	return nil
}

// owns checks that a certificate is for our key.
func owns(key crypto.Signer, peer identity.Peer) error {
	spki, err := identity.SPKIOf(key.Public())
	if err == nil && spki != peer.SPKI {
		err = errors.New("the certificate is for another key")
	}
	return err
}

// store replaces the account; the caller has the lock. The key goes last: a power cut before it leaves files that check
// refuses, and the same login command, with the key that login kept, makes them whole.
func (h home) store(s state) error {
	key, err := identity.MarshalKey(s.key)
	if err != nil {
		return err
	}
	config, err := json.MarshalIndent(s.config, "", "\t")
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{
		{rootFile, s.roots.PEM()},
		{configFile, append(config, '\n')},
		{identityFile, identity.MarshalChain(s.chain)},
		{keyFile, key},
	} {
		if err := durable.WriteFile(h.path(f.name), f.data, 0o600); err != nil {
			return err
		}
	}
	return os.Remove(h.path(pendingFile))
}

// storeChain writes a renewed certificate, unless another process has logged in as somebody else since.
func (h home) storeChain(key crypto.Signer, chain []*x509.Certificate) error {
	unlock, err := h.lock()
	if err != nil {
		return err
	}
	defer unlock.Close()
	now, err := h.readKey(keyFile)
	if err != nil {
		return err
	}
	if spki, err := identity.SPKIOf(now.Public()); err != nil || spki != identity.CertSPKI(chain[0]) {
		return errors.New("store certificate: another login has replaced the key")
	}
	return durable.WriteFile(h.path(identityFile), identity.MarshalChain(chain), 0o600)
}

// storeGood writes the addresses that worked.
func (h home) storeGood(c config, list []good) error {
	return h.amend(c, func(now *config) { now.Good = list })
}

// storeMeasured writes when the relays were measured.
func (h home) storeMeasured(c config, m *measured) error {
	return h.amend(c, func(now *config) { now.Measured = m })
}

// amend changes the config, if it is still that of the account for which the change is meant.
func (h home) amend(c config, change func(*config)) error {
	unlock, err := h.lock()
	if err != nil {
		return err
	}
	defer unlock.Close()
	now, err := h.readConfig()
	if err != nil || now.Domain != c.Domain || now.User != c.User || now.Hosts[0] != c.Hosts[0] {
		return err
	}
	change(&now)
	b, err := json.MarshalIndent(now, "", "\t")
	if err != nil {
		return err
	}
	return durable.WriteFile(h.path(configFile), append(b, '\n'), 0o600)
}

// pendingKey returns the key for a login: the one of a login that was cut off, or a new one that is on disk before
// anybody hears of it. So a code whose answer was lost works again (access §6).
func (h home) pendingKey() (crypto.Signer, error) {
	key, err := h.readKey(pendingFile)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, asUsage(err)
	}
	if key, err = identity.NewKey(); err != nil {
		return nil, err
	}
	b, err := identity.MarshalKey(key)
	if err != nil {
		return nil, err
	}
	return key, durable.WriteFile(h.path(pendingFile), b, 0o600)
}

// notLoggedIn says what a home that cannot be read means: nobody is logged in, or the user has to mend it first.
func notLoggedIn(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fail(NotLoggedIn, "read account", err)
	}
	return asUsage(err)
}

// asUsage makes err something that the user has to mend in files or flags. Nil stays nil.
func asUsage(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*UsageError](err); ok {
		return err
	}
	return &UsageError{err}
}
