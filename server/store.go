package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"gopkg.in/yaml.v3"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/internal/strictyaml"
	"hawser/server/store"
	"hawser/transport"
)

// rawStore is access.store of server.yaml.
type rawStore struct {
	URL string `yaml:"url"`
}

// check returns the URL of the PostgreSQL database; empty is a store in the Access Server's directory.
func (r *rawStore) check() (string, error) {
	if r == nil {
		return "", nil
	}
	if _, err := store.CheckURL(r.URL); err != nil {
		return "", strictyaml.At("url", err)
	}
	return r.URL, nil
}

// rawAudit is access.audit of server.yaml.
type rawAudit struct {
	Days  int `yaml:"days,omitempty"`
	MaxMB int `yaml:"max_mb,omitempty"`
}

const (
	maxAuditDays = 100 * 366
	minAuditMB   = 16
	maxAuditMB   = 1 << 20
)

// check says how long audit records are kept. Without a section nothing goes for its age. A bound that is far off is a
// typing error, which would be noticed when the disk is full, or the records are gone.
func (r *rawAudit) check() (store.Retention, error) {
	if r == nil {
		r = new(rawAudit)
	}
	switch {
	case r.Days < 0 || r.Days > maxAuditDays:
		return store.Retention{}, at("days", "%d is not within 1 and %d", r.Days, maxAuditDays)
	case r.MaxMB != 0 && (r.MaxMB < minAuditMB || r.MaxMB > maxAuditMB):
		return store.Retention{}, at("max_mb", "%d is not within %d and %d", r.MaxMB, minAuditMB, maxAuditMB)
	}
	return store.Retention{Age: time.Duration(r.Days) * 24 * time.Hour, Bytes: int64(r.MaxMB) << 20}, nil
}

// shared reports whether other Access Servers can have the same store.
func (c AccessConfig) shared() bool { return c.Store != "" }

// openStore opens the store of an Access Server; shared as in store.Options.
func openStore(ctx context.Context, c AccessConfig, shared bool, log *slog.Logger) (*store.Store, error) {
	return openStoreAs(ctx, c, c.storeOptions(shared, log))
}

// openStoreAs refuses the store of another user before it opens it.
func openStoreAs(ctx context.Context, c AccessConfig, o store.Options) (*store.Store, error) {
	info, err := os.Stat(c.Dir)
	if err == nil {
		err = checkOwner(c.Dir, info)
	}
	if err != nil {
		return nil, err
	}
	return store.Open(ctx, o)
}

func (c AccessConfig) storeOptions(shared bool, log *slog.Logger) store.Options {
	return store.Options{Dir: filepath.Join(c.Dir, storeDir), URL: c.Store, Node: c.Name.ID, Shared: shared, Audit: c.Audit, Logger: log}
}

// enterNode writes that an Access Server may take part, and where the others reach it. ca is the key of its issuing CA,
// by which they know it.
func enterNode(ctx context.Context, st *store.Store, name identity.Name, ca identity.SPKI, hosts []string, ports []transport.Port) error {
	n := store.Node{Name: name.ID, CA: ca, Hosts: hosts, Ports: ports}
	return st.Update(ctx, func(tx *store.Tx) error { return tx.Put(&n) })
}

// checkNode refuses to run an Access Server that the others would not know.
func checkNode(ctx context.Context, st *store.Store, name identity.Name, ca identity.SPKI) error {
	n := store.Node{Name: name.ID}
	err := st.View(ctx, func(tx *store.Tx) error { return tx.Get(&n) })
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("the store knows no Access Server %s: make one with init --join", name.ID)
	case err != nil:
		return err
	case n.CA != ca:
		return fmt.Errorf("the store knows Access Server %s by another issuing key than the one here", name.ID)
	}
	return nil
}

// What an operator does with the store of an Access Server. Where the server runs, it does it itself.

// errNoAccess refuses the configuration of a relay.
var errNoAccess = configError("this server is no Access Server: it has no store")

// withStoreAdmin lets f work with the store of a running server, or opens it. The socket is tried first: the lock would
// refuse a second process anyway, with a worse message.
func withStoreAdmin(ctx context.Context, c AccessConfig, shared bool, now time.Time, f func(storeAdmin) error) (err error) {
	if r := dialAdmin(c.Dir); r != nil {
		return f(r)
	}
	st, err := openStore(ctx, c, shared, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return f(localAdmin{c, st, func() time.Time { return now }})
}

// Backup writes a dump of the store into a file of mode 0600, which is there whole or not at all, encrypted unless
// passphrase is empty. The server goes on meanwhile. The file is this process's and not the server's: it belongs to who
// asked for it.
func Backup(ctx context.Context, c Config, path, passphrase string) error {
	if c.Access == nil {
		return errNoAccess
	}
	return store.WriteFile(path, passphrase, func(w io.Writer) error {
		return withStoreAdmin(ctx, *c.Access, true, time.Now(), func(k storeAdmin) error { return k.Backup(ctx, w) })
	})
}

// Restore puts a dump in the place of the store, which must be empty; replace takes a store in the server's own
// directory out of the way first, and says where it is then. The server must not run.
func Restore(ctx context.Context, c Config, path, passphrase string, replace bool, now time.Time) (kept string, err error) {
	if c.Access == nil {
		return "", errNoAccess
	}
	if dialAdmin(c.Access.Dir) != nil {
		return "", fmt.Errorf("restore store: the server runs: stop it first")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("restore store: %w", err)
	}
	defer f.Close()
	r, err := store.Decrypt(f, passphrase)
	if err != nil {
		return "", fmt.Errorf("restore store: %s: %w", path, err)
	}
	if replace && !c.Access.shared() {
		kept = filepath.Join(c.Access.Dir, storeDir+"-until-"+now.UTC().Format("20060102T150405Z"))
		err := os.Rename(filepath.Join(c.Access.Dir, storeDir), kept)
		if errors.Is(err, fs.ErrNotExist) {
			kept = ""
		} else if err != nil {
			return "", fmt.Errorf("restore store: %w", err)
		}
	}
	health, err := store.Restore(ctx, c.Access.storeOptions(false, nil), r)
	if errors.Is(err, store.ErrExists) && !c.Access.shared() {
		err = fmt.Errorf("%w: --replace takes it out of the way", err)
	}
	return kept, errors.Join(err, health.Err())
}

// AcceptStore takes the store for right as it is.
func AcceptStore(ctx context.Context, c Config) error {
	if c.Access == nil {
		return errNoAccess
	}
	return withStoreAdmin(ctx, *c.Access, false, time.Now(), func(k storeAdmin) error { return k.Accept(ctx) })
}

// FounderCode makes a code for the founder of a domain, which add makes first: user is who logs in with it. Codes live 72 h.
func FounderCode(ctx context.Context, c Config, domain, user string, add bool) (code string, expires time.Time, err error) {
	if c.Access == nil {
		return "", expires, errNoAccess
	}
	var made founded
	err = withStoreAdmin(ctx, *c.Access, false, time.Now(), func(k storeAdmin) (err error) {
		made, err = k.Found(ctx, founding{domain, user, add})
		return err
	})
	return made.Code, made.Expires, err
}

// MoveStore copies the store to the PostgreSQL database at url, or for "" into the Access Server's directory, and
// writes the configuration for that. A running server writes nothing from then on, and has to be started anew.
func MoveStore(ctx context.Context, c Config, url string) error {
	if c.Access == nil {
		return errNoAccess
	}
	if url != "" {
		if _, err := store.CheckURL(url); err != nil {
			return configError("%w", err)
		}
	}
	changed, err := withStoreURL(c.File, url)
	if err != nil {
		return err
	}
	err = withStoreAdmin(ctx, *c.Access, false, time.Now(), func(k storeAdmin) error { return k.Move(ctx, url) })
	if err != nil {
		return err
	}
	info, err := os.Stat(c.File)
	if err == nil {
		err = durable.WriteFile(c.File, changed, info.Mode().Perm())
	}
	if err == nil {
		err = giveBack(c.File, info) // who runs the server must be able to read it
	}
	if err != nil {
		return fmt.Errorf("the store was moved, and %s still names the old one: set access.store.url by hand: %w", c.File, err)
	}
	return nil
}

// withStoreURL returns a configuration with another access.store, its comments kept. It is changed as a tree of nodes
// and parsed again before it is used: what an operator wrote beside it stays, and what comes out is a configuration
// that runs.
func withStoreURL(file, url string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	access := valueOf(doc.Content[0], "access")
	if access == nil {
		return nil, errNoAccess
	}
	for i := 0; i+1 < len(access.Content); i += 2 {
		if access.Content[i].Value == "store" {
			access.Content = append(access.Content[:i], access.Content[i+2:]...)
			break
		}
	}
	if url != "" {
		var value yaml.Node
		if err := value.Encode(rawStore{url}); err != nil {
			return nil, err
		}
		access.Content = append(access.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "store"}, &value)
	}
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return nil, err
	}
	if _, err := Parse(file, out.Bytes()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func valueOf(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}
