package server

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/server/access"
	"hawser/server/store"
	"hawser/transport"
)

// What Init calls things; each can be changed in the configuration later.
const (
	DefaultDomain = "default" // of Options.Domain
	FirstUser     = "admin"
	firstAccess   = "access1"
	firstRelay    = "relay1"
)

// Names below an infrastructure's directory.
const (
	configFile = "server.yaml"
	rootFile   = "root.pem"
	rootDir    = "root"
	accessDir  = "access"
	relayDir   = "relay"
	storeDir   = "store"        // in accessDir
	resetsDir  = "floor-resets" // in accessDir

	domainResetsDir = "domain-resets" // in accessDir
	codeFile        = "code"          // in relayDir
)

// Options says what Init is to make.
type Options struct {
	Dir    string           // gets everything; made if it is not there
	Hosts  []string         // names or IP literals at which clients will reach the server
	Domain string           // the first domain; empty: DefaultDomain
	Ports  []transport.Port // nil: the default ports
	Store  *store.Store     // nil: a new one in Dir, or at URL; another one is not closed
	Now    func() time.Time // nil: time.Now

	// URL says where the store is to be, as access.store.url of server.yaml; empty: in Dir.
	URL string
	// Join is the directory with the root of an infrastructure that this server is to become an Access Server of,
	// beside others on the same database. It gets keys and a name of its own, and no relay. Empty: a new
	// infrastructure.
	Join string
}

// Made is what Init has made. Paths are absolute.
type Made struct {
	Dir       string
	Config    string
	RootFile  string        // what clients pin
	Root      identity.SPKI // or this
	RootKey   string        // what nobody needs to run
	Access    identity.Name // the Access Server
	Joined    bool          // there was an infrastructure, so that there is no:
	AdminCode identity.Code // for the first login
}

// Init makes a Server Infrastructure of one server with both roles: root, issuing CA, keys, configuration, and a store
// with the first domain, user and relay. It refuses a directory in which any of it is already, with fs.ErrExist, and
// after an error nothing is left that was not there before, but perhaps what was written into an external store. Bad
// options are a *ConfigError. With Join it makes another Access Server of an infrastructure. All of it is built in a
// directory beside and moved at the end, so that an error, or a power cut, leaves no half infrastructure that a second
// try would refuse to overwrite.
func Init(ctx context.Context, o Options) (made Made, err error) {
	dir, r, err := o.check()
	if err != nil {
		return made, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	_, statErr := os.Stat(dir)
	fresh := errors.Is(statErr, fs.ErrNotExist)
	if err := durable.OpenDir(dir); err != nil {
		return made, fmt.Errorf("init server: %w", err)
	}
	defer func() {
		if err != nil && fresh {
			err = errors.Join(err, os.Remove(dir))
		}
	}()
	if err := vacant(dir); err != nil {
		return made, fmt.Errorf("init server: %w", err)
	}
	stage, err := os.MkdirTemp(dir, ".init-*")
	if err != nil {
		return made, fmt.Errorf("init server: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	if made, err = build(ctx, o, stage, r); err != nil {
		return Made{}, fmt.Errorf("init server: %w", err)
	}
	if err := move(stage, dir, r); err != nil {
		return Made{}, fmt.Errorf("init server: %w", err)
	}
	made.Dir, made.Config = dir, filepath.Join(dir, configFile)
	made.RootFile, made.RootKey = filepath.Join(dir, rootFile), filepath.Join(dir, rootDir, rootName+".key")
	if o.Join != "" {
		made.RootKey = filepath.Join(o.Join, rootName+".key")
	}
	return made, nil
}

// check makes a configuration of the options. It is the one that Run reads back, so what Init accepts, Run does.
func (o *Options) check() (dir string, r raw, err error) {
	if o.Dir == "" {
		return "", r, configError("no directory is given")
	}
	if dir, err = filepath.Abs(o.Dir); err != nil {
		return "", r, configError("%w", err)
	}
	if o.Domain == "" {
		o.Domain = DefaultDomain
	}
	if err := identity.CheckLabel(o.Domain); err != nil {
		return "", r, configError("domain %q: %w", o.Domain, err)
	}
	if o.Ports == nil {
		o.Ports = []transport.Port{80, 443, 5935}
	}
	o.Hosts = typed(o.Hosts)
	r = raw{
		Hosts: o.Hosts, Ports: o.Ports, Listen: loopbackOnly(o.Hosts), Root: rootFile,
		Access: &rawAccess{Name: firstAccess, Dir: accessDir, Heartbeat: defaultHeartbeat},
		Relay:  &rawRelay{Name: firstRelay, Dir: relayDir},
	}
	if err := o.place(&r); err != nil {
		return "", r, configError("%w", err)
	}
	if _, err := r.check(dir); err != nil {
		return "", r, configError("%w", err)
	}
	return dir, r, nil
}

// loopbackOnly returns where to listen when all hosts are loopback literals: there, so that a trial on one machine is
// not open to its network. Otherwise nil, which is everywhere.
func loopbackOnly(hosts []string) (listen []string) {
	for _, h := range hosts {
		a, err := netip.ParseAddr(h)
		if err != nil || !a.IsLoopback() {
			return nil
		}
		listen = append(listen, a.String())
	}
	return listen
}

// vacant refuses a directory that holds any part of an infrastructure, the most telling one first. A root that is
// overwritten is lost with everything that trusts it.
func vacant(dir string) error {
	for _, name := range []string{configFile, rootDir, rootFile, accessDir, relayDir} {
		path := filepath.Join(dir, name)
		switch _, err := os.Lstat(path); {
		case err == nil:
			return &fs.PathError{Op: "make", Path: path, Err: fs.ErrExist}
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return nil
}

// build makes everything but the configuration in stage.
func build(ctx context.Context, o Options, stage string, r raw) (made Made, err error) {
	made.Access = identity.AccessName(r.Access.Name)
	if o.Join != "" {
		made.Joined = true
		if made.Root, err = joinRoot(o, stage, made.Access); err != nil {
			return made, err
		}
		return made, withStore(ctx, o, stage, r, func(st *store.Store) error { return enterMade(ctx, st, stage, made.Access, r) })
	}
	for _, sub := range []string{rootDir, accessDir, relayDir} {
		if err := durable.OpenDir(filepath.Join(stage, sub)); err != nil {
			return made, err
		}
	}
	root, err := makeRoot(stage, o.Now())
	if err != nil {
		return made, err
	}
	if err := makeKeys(root, stage, made.Access, o.Now()); err != nil {
		return made, err
	}
	made.Root = identity.CertSPKI(root.Cert)
	var relayCode identity.Code
	err = withStore(ctx, o, stage, r, func(st *store.Store) (err error) {
		if err = enterMade(ctx, st, stage, made.Access, r); err != nil {
			return err
		}
		made.AdminCode, relayCode, err = access.Bootstrap(ctx, st, o.Domain, FirstUser, firstRelay, o.Now())
		return err
	})
	if err != nil {
		return made, err
	}
	code := []byte(relayCode.String() + "\n")
	return made, durable.WriteFile(filepath.Join(stage, relayDir, codeFile), code, 0o600)
}

// withStore opens the store for as long as f takes.
func withStore(ctx context.Context, o Options, stage string, r raw, f func(*store.Store) error) (err error) {
	if o.Store != nil {
		return f(o.Store)
	}
	c, err := r.Access.check(stage)
	if err != nil {
		return err
	}
	if err := vacantNode(ctx, *c); err != nil {
		return err
	}
	st, err := openStore(ctx, *c, false, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return f(st)
}

// vacantNode refuses a database in which there is an Access Server of this name. It looks as a node that writes
// nothing: to open the store as that server would end its lease. A second init on a database in use took the lease and
// the node of its server, which then could write nothing more.
func vacantNode(ctx context.Context, c AccessConfig) (err error) {
	if !c.shared() {
		return nil
	}
	st, err := openStore(ctx, c, true, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	n := store.Node{Name: c.Name.ID}
	switch err := st.View(ctx, func(tx *store.Tx) error { return tx.Get(&n) }); {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err == nil:
		return fmt.Errorf("the database has an Access Server %s already: another infrastructure needs another database, "+
			"and another Access Server of this one is made with --join: %w", n.Name, store.ErrExists)
	default:
		return err
	}
}

// enterMade enters the Access Server whose keys are in stage.
func enterMade(ctx context.Context, st *store.Store, stage string, name identity.Name, r raw) error {
	issuing, err := loadPair(filepath.Join(stage, accessDir), issuingName)
	if err != nil {
		return err
	}
	return enterNode(ctx, st, name, identity.CertSPKI(issuing.Chain[0]), r.Hosts, r.Ports)
}

// makeRoot makes the root of an infrastructure.
func makeRoot(stage string, now time.Time) (*identity.Authority, error) {
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	root, err := identity.NewRoot(key, now)
	if err != nil {
		return nil, err
	}
	return root, savePair(filepath.Join(stage, rootDir), rootName, root.Key, root.Cert)
}

// makeKeys makes what the root certifies for an Access Server. Each key has one use: a stolen one signs grants, or the
// time, or certificates, and not all of them.
func makeKeys(root *identity.Authority, stage string, name identity.Name, now time.Time) error {
	keys := map[string]crypto.Signer{}
	for _, name := range []string{issuingName, timeName, grantName} {
		key, err := identity.NewKey()
		if err != nil {
			return err
		}
		keys[name] = key
	}
	issuing, err := root.NewIssuing(keys[issuingName], now)
	if err != nil {
		return err
	}
	timeCert, err := root.CertifyTimeKey(name, keys[timeName].Public(), now)
	if err != nil {
		return err
	}
	grantCert, err := root.CertifyGrantKey(name, keys[grantName].Public(), now)
	if err != nil {
		return err
	}
	in := filepath.Join(stage, accessDir)
	return errors.Join(
		savePair(in, issuingName, issuing.Key, issuing.Cert, root.Cert),
		savePair(in, timeName, keys[timeName], timeCert),
		savePair(in, grantName, keys[grantName], grantCert),
		credential.Write(stage, credential.ChainFile(rootFile, []*x509.Certificate{root.Cert}, credential.Public)),
	)
}

// move takes what was built to its place and writes the configuration: with it the infrastructure is there. What was
// moved before an error is taken away. The configuration is written last, because it is what run looks for.
func move(stage, dir string, r raw) (err error) {
	var moved []string
	defer func() {
		if err != nil {
			for _, path := range moved {
				err = errors.Join(err, os.RemoveAll(path))
			}
		}
	}()
	config, err := encode(r)
	if err != nil {
		return err
	}
	parts := []string{rootFile, accessDir}
	if r.Relay != nil { // this is the first server, which came with the root
		parts = append(parts, rootDir, relayDir)
	}
	for _, name := range parts {
		to := filepath.Join(dir, name)
		if err := os.Rename(filepath.Join(stage, name), to); err != nil {
			return err
		}
		moved = append(moved, to)
	}
	return durable.WriteFile(filepath.Join(dir, configFile), config, 0o600)
}

// place says in a configuration where the store is, and, for an Access Server that joins others, who it is. Its name is
// in audit chains and certificates for ever, so it is one that nobody has had: a random one.
func (o *Options) place(r *raw) (err error) {
	switch {
	case o.URL != "":
		r.Access.Store = &rawStore{o.URL}
	case o.Join != "":
		return errors.New("another Access Server needs the PostgreSQL database that the others have: --store")
	}
	if o.Join == "" {
		return nil
	}
	if o.Join, err = filepath.Abs(o.Join); err != nil {
		return err
	}
	r.Access.Name, r.Relay = joinedAccess+identity.NewUID().String()[:8], nil
	return nil
}

// joinedAccess is what the names of joining Access Servers begin with.
const joinedAccess = "access-"

// joinRoot makes the keys of an Access Server under a root that is there.
func joinRoot(o Options, stage string, name identity.Name) (identity.SPKI, error) {
	root, err := loadRoot(o.Join, o.Now())
	if err != nil {
		return identity.SPKI{}, fmt.Errorf("join %s: %w", o.Join, err)
	}
	if err := durable.OpenDir(filepath.Join(stage, accessDir)); err != nil {
		return identity.SPKI{}, err
	}
	return identity.CertSPKI(root.Cert), makeKeys(root, stage, name, o.Now())
}
