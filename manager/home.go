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
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/internal/owner"
	"hawser/transport"
	"hawser/transport/api"
)

// The files of a home.
const (
	keyFile = "key.pem" // the private key, 0600
	// It is not keyFile before the login is complete: until then the old account works.
	pendingFile  = "login.key"    // the key of a login that is not complete
	identityFile = "identity.pem" // the user's certificate and its issuing chain (identity §4)
	rootFile     = "root.pem"     // the pinned roots
	configFile   = "config.json"
	lockName     = "lock" // locked while files are read or written; always empty
)

// config is config.json.
type config struct {
	Hosts  []string         `json:"hosts"` // HOST or HOST:PORT, the one that was used first
	Ports  []transport.Port `json:"ports"`
	Domain string           `json:"domain"`
	User   string           `json:"user"`
	Good   []good           `json:"good,omitempty"` // newest first
	// Own are the ports that the user gave, and Private his word that the infrastructure is: how far what a server tells is
	// followed (wire §8.3).
	Own     []transport.Port `json:"own_ports,omitempty"`
	Private bool             `json:"private,omitempty"`
	// Proxy is auto, none, or URLs, which may hold passwords: the file is private. Nil: auto.
	Proxy []string `json:"proxy,omitempty"`

	Measured *measured `json:"measured,omitempty"` // nil: never
}

// measured says when the relays were measured from here, and which.
type measured struct {
	At     time.Time `json:"at"`
	Relays []string  `json:"relays"`
}

// good is a way that worked.
type good struct {
	Host string `json:"host"`
	transport.Known
}

// proxy is what the account says of proxies.
func (c config) proxy() (transport.ProxySetting, error) {
	if c.Proxy == nil {
		return transport.AutoProxies(), nil
	}
	s, _, err := transport.ParseProxySetting(c.Proxy)
	return s, err
}

// bounds are those of what is dialled. Only the first host was typed: a server has named the others.
func (c config) bounds() transport.Bounds {
	return transport.Bounds{Hosts: c.Hosts[:min(len(c.Hosts), 1)], Ports: c.Own, Private: c.Private}
}

// state is all that a home holds.
type state struct {
	credential.Credential
	roots  *identity.Roots
	config config
	owner  *owner.Owner
}

// certificate is the one that the account shows in TLS.
func (s state) certificate() *tls.Certificate { return new(s.TLS()) }

// home is the directory of an account. Processes that share it take turns with the lock. All of its files are private,
// the certificate and the roots too: a login is worth as much as the key, and there is one rule to check.
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

// read checks each file by itself only. It starts with the config: a missing one means that nobody has logged in.
func (h home) read() (s state, err error) {
	if s.config, err = h.readConfig(); err != nil {
		return s, err
	}
	if s.Key, err = h.readKey(); err != nil {
		return s, err
	}
	if s.Chain, err = credential.Load(h.path(identityFile), identity.ParseChain); err != nil {
		return s, err
	}
	if s.roots, err = h.readRoots(); err != nil {
		return s, err
	}
	s.owner, err = h.openOwner(s)
	return s, err
}

// openOwner reads what is known of the owner of the domain. The caller holds the lock; later changes take it.
func (h home) openOwner(s state) (*owner.Owner, error) {
	self, err := s.self()
	if err != nil {
		return nil, err
	}
	o, err := owner.Open(string(h), self)
	if err == nil {
		o.Lock = h.lock
	}
	return o, err
}

// self is who the account is, by the files alone.
func (s state) self() (identity.Peer, error) {
	spki, err := identity.SPKIOf(s.Key.Public())
	return identity.Peer{Name: identity.UserName(s.config.Domain, s.config.User), SPKI: spki}, err
}

func (h home) readKey() (crypto.Signer, error) {
	return credential.Load(h.path(keyFile), identity.ParseKey)
}

// readRoots reads the pinned roots. They are no secret, but whoever could change them could stand in for the server: they
// are guarded like the key.
func (h home) readRoots() (*identity.Roots, error) {
	roots, err := credential.Load(h.path(rootFile), identity.ParseRoots)
	if err == nil {
		err = credential.LoadRefused(string(h), roots)
	}
	return roots, err
}

// readConfig is strict: an unknown key is a typing error of whoever has edited the file.
func (h home) readConfig() (c config, err error) {
	return credential.Load(h.path(configFile), func(b []byte) (c config, err error) {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err = d.Decode(&c); err == nil && len(c.Hosts) == 0 {
			err = errors.New("it names no hosts")
		}
		if _, bad := c.proxy(); err == nil && bad != nil {
			err = fmt.Errorf("proxy: %w", bad)
		}
		return c, err
	})
}

// check checks that the files are of one account. It ignores dates: the server decides about those. A login that was
// cut off leaves files of two accounts, which are only told apart here.
func (s state) check() error {
	peer, err := s.Verify(s.roots, identity.KindUser)
	if err == nil && peer.Name != identity.UserName(s.config.Domain, s.config.User) {
		err = errors.New("identity.pem is of another user than config.json")
	}
	if err != nil {
		return fail(api.NotLoggedIn, "read account", err)
	}
	return nil
}

// store replaces the account; the caller holds the lock. The key is written last: after a power cut before that, check
// refuses the files, and the same login command, which finds its key in pendingFile, completes them. pendingFile goes
// last: until the key is in its place it is the only copy.
func (h home) store(s state) error {
	key, err := credential.KeyFile(keyFile, s.Key)
	if err != nil {
		return err
	}
	config, err := json.MarshalIndent(s.config, "", "\t")
	if err != nil {
		return err
	}
	err = credential.Write(string(h),
		credential.File{Name: rootFile, Data: s.roots.PEM(), Mode: credential.Private},
		credential.File{Name: configFile, Data: append(config, '\n'), Mode: credential.Private},
		credential.ChainFile(identityFile, s.Chain, credential.Private),
		key)
	if err != nil {
		return err
	}
	return os.Remove(h.path(pendingFile))
}

// storeChain writes a renewed certificate, unless another process has logged in as somebody else since.
func (h home) storeChain(chain []*x509.Certificate) error {
	unlock, err := h.lock()
	if err != nil {
		return err
	}
	defer unlock.Close()
	key, err := h.readKey()
	if err != nil {
		return err
	}
	if err := (credential.Credential{Key: key, Chain: chain}).Check(); err != nil {
		return fmt.Errorf("store certificate: another login has replaced the key: %w", err)
	}
	return credential.Write(string(h), credential.ChainFile(identityFile, chain, credential.Private))
}

// storeGood writes the addresses that worked.
func (h home) storeGood(c config, list []good) error {
	return h.amend(c, func(now *config) { now.Good = list })
}

// storeMeasured writes when the relays were measured.
func (h home) storeMeasured(c config, m *measured) error {
	return h.amend(c, func(now *config) { now.Measured = m })
}

// amend changes the config, unless the home holds another account by now. hawser connect runs for days; the home may
// have been logged in anew meanwhile.
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

// pendingKey returns the key for a login: that of an interrupted login, or a new one, which is on disk before it is used.
// So a code works again when its answer was lost (access §6).
func (h home) pendingKey() (crypto.Signer, error) {
	key, err := credential.Load(h.path(pendingFile), identity.ParseKey)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, asUsage(err)
	}
	return credential.MakeKey(h.path(pendingFile))
}

// notLoggedIn classifies an error of reading a home: nobody is logged in, or the user has to repair a file.
func notLoggedIn(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fail(api.NotLoggedIn, "read account", errors.New("nobody has logged in here"))
	}
	return asUsage(err)
}

// asUsage marks err as one that the user has to fix in files or flags. Nil stays nil.
func asUsage(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*answer.UsageError](err); ok {
		return err
	}
	return &answer.UsageError{Err: err}
}
