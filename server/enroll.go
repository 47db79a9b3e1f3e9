package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/internal/strictyaml"
	"hawser/server/relay"
	"hawser/transport"
)

// EnrollOptions says which relay Enroll is to make, on a machine of its own.
type EnrollOptions struct {
	Dir         string           // gets everything; made if it is not there
	Hosts       []string         // names or IP literals at which clients will reach the relay
	Ports       []transport.Port // on which it answers; nil: the default ports
	Access      []string         // HOST or HOST:PORT of Access Servers
	AccessPorts []transport.Port // of those without a port; nil: the default ports
	Code        identity.Code    // activation code
	RootFile    string           // PEM file of the roots to pin, or:
	Pin         string           // hex SHA-256 of the root's public key

	Dialer *transport.Dialer // nil: a new one
	Now    func() time.Time  // nil: time.Now
}

// EnrolledRelay is what Enroll has made. Paths are absolute.
type EnrolledRelay struct {
	Dir      string
	Config   string
	Name     string
	SPKI     identity.SPKI // of its key
	NotAfter time.Time     // of its first certificate
}

// Enroll makes the directory of a server that is a relay alone, with the identity that the activation code is for: what
// is wrong with the code, or with the way to the Access Server, is found now and not when it runs. It refuses a
// directory of another server, with fs.ErrExist. After an error only the relay's key may be left, with which the same
// code can be given again; repeating it after success is fine as well. Bad options are a *ConfigError; Refused,
// Unreachable and Advice tell about the others.
func Enroll(ctx context.Context, o EnrollOptions) (EnrolledRelay, error) {
	p, err := o.check()
	if err != nil {
		return EnrolledRelay{}, err
	}
	made, err := p.enroll(ctx, o)
	if err != nil {
		return EnrolledRelay{}, fmt.Errorf("enroll relay: %w", err)
	}
	return made, nil
}

// A plan is EnrollOptions found good.
type plan struct {
	dir    string
	config raw         // without the relay's name, which only the Access Server knows
	relay  RelayConfig // the same, checked
	roots  *identity.Roots
	pin    identity.SPKI // when roots is nil
}

// check makes a configuration of the options. It is the one that Run reads back, so what Enroll accepts, Run does. The
// name stands for one that is not known yet: the code decides it.
func (o EnrollOptions) check() (p plan, err error) {
	bad := func(err error) (plan, error) { return plan{}, configError("%w", err) }
	if o.Dir == "" {
		return bad(errors.New("no directory is given"))
	}
	if p.dir, err = filepath.Abs(o.Dir); err != nil {
		return bad(err)
	}
	if o.Ports == nil {
		o.Ports = []transport.Port{80, 443, 5935}
	}
	o.Hosts, o.Access = typed(o.Hosts), typed(o.Access)
	p.config = raw{
		Hosts: o.Hosts, Ports: o.Ports, Listen: loopbackOnly(o.Hosts), Root: rootFile,
		Relay: &rawRelay{Name: firstRelay, Dir: relayDir, Access: o.Access, Ports: o.AccessPorts},
	}
	c, err := p.config.check(p.dir)
	if err != nil {
		return bad(err)
	}
	p.relay = *c.Relay
	if o.Code == (identity.Code{}) {
		return bad(errors.New("no activation code is given"))
	}
	if err := p.trust(o); err != nil {
		return bad(err)
	}
	return p, nil
}

// trust reads the root or pin that the operator gives. A relay that trusted the first certificate it saw could be
// enrolled with anybody.
func (p *plan) trust(o EnrollOptions) (err error) {
	switch {
	case (o.RootFile == "") == (o.Pin == ""):
		return errors.New("whom to trust: give either a root file or a pin, as hawser-server init printed them")
	case o.RootFile != "":
		p.roots, err = loadRoots(o.RootFile)
	default:
		p.pin, err = identity.ParsePin(o.Pin)
	}
	if err != nil {
		return fmt.Errorf("root: %w", err)
	}
	return nil
}

func (p plan) enroll(ctx context.Context, o EnrollOptions) (EnrolledRelay, error) {
	name, err := p.madeBefore()
	if err != nil {
		return EnrolledRelay{}, err
	}
	if err := durable.OpenDir(p.dir); err != nil {
		return EnrolledRelay{}, err
	}
	e, err := relay.Enroll(ctx, relay.Config{
		Name: name, Dir: p.relay.Dir, Code: o.Code, Access: p.relay.Access, Ports: p.relay.Ports,
		Roots: p.roots, Proxies: p.relay.Proxy.Source(transport.ServiceProxies), Dialer: o.Dialer, Now: o.Now,
	}, p.pin)
	if err != nil {
		return EnrolledRelay{}, err
	}
	p.config.Relay.Name = e.Name
	made := EnrolledRelay{p.dir, filepath.Join(p.dir, configFile), e.Name, identity.CertSPKI(e.Leaf), e.Leaf.NotAfter.UTC()}
	config, err := encode(p.config)
	if err != nil {
		return EnrolledRelay{}, err
	}
	if err := durable.WriteFile(filepath.Join(p.dir, rootFile), e.Roots.PEM(), 0o644); err != nil {
		return EnrolledRelay{}, err
	}
	return made, durable.WriteFile(made.Config, config, 0o600) // the last: with it the relay is there
}

// madeBefore returns the name of the relay that the same options have made here before, or empty if there is none.
// Anything else that is here is not to be touched.
func (p plan) madeBefore() (name string, err error) {
	taken := func(name string) error {
		return &fs.PathError{Op: "make", Path: filepath.Join(p.dir, name), Err: fs.ErrExist}
	}
	for _, name := range []string{rootDir, accessDir} {
		if _, err := os.Lstat(filepath.Join(p.dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return "", errors.Join(err, taken(name))
		}
	}
	b, err := durable.ReadTrusted(filepath.Join(p.dir, configFile), strictyaml.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var had raw
	if _, err := strictyaml.Decode(b, &had); err != nil || had.Relay == nil {
		return "", taken(configFile)
	}
	same := p.config
	// A copy: the relay's name is the only thing that may differ, because only the Access Server knew it.
	same.Relay = new(*p.config.Relay)
	same.Relay.Name = had.Relay.Name
	if again, err := encode(same); err != nil || !bytes.Equal(again, b) {
		return "", errors.Join(err, taken(configFile))
	}
	return had.Relay.Name, nil
}
