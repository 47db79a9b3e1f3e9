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
	Code        string           // activation code
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

// Enroll makes the directory of a server that is a relay alone, with the
// identity that the activation code is for: what is wrong with the code, or
// with the way to the Access Server, is found now and not when it runs. It
// refuses a directory of another server, with fs.ErrExist. After an error only
// the relay's key may be left, with which the same code can be given again;
// repeating it after success is fine as well. Bad options are a *ConfigError;
// Refused, Unreachable and Advice tell about the others.
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
	config raw         // but for the relay's name, which the Access Server says
	relay  RelayConfig // the same, checked
	roots  *identity.Roots
	pin    identity.SPKI // when roots is nil
}

// check makes a configuration of the options. It is the one that Run reads
// back, so what Enroll accepts, Run does.
func (o EnrollOptions) check() (p plan, err error) {
	bad := func(err error) (plan, error) { return plan{}, &ConfigError{Text: err.Error()} }
	if o.Dir == "" {
		return bad(errors.New("no directory is given"))
	}
	if p.dir, err = filepath.Abs(o.Dir); err != nil {
		return bad(err)
	}
	if o.Ports == nil {
		o.Ports = []transport.Port{80, 443, 5935}
	}
	p.config = raw{
		Hosts: o.Hosts, Ports: o.Ports, Listen: loopbackOnly(o.Hosts), Root: rootFile,
		Relay: &rawRelay{Name: firstRelay, Dir: relayDir, Access: o.Access, Ports: o.AccessPorts},
	}
	c, err := p.config.check(p.dir)
	if err != nil {
		return bad(err)
	}
	p.relay = *c.Relay
	if _, err := identity.ParseCode(o.Code); err != nil {
		return bad(fmt.Errorf("code: %w: compare it with what hawser relay add printed", err))
	}
	if err := p.trust(o); err != nil {
		return bad(err)
	}
	return p, nil
}

// trust reads whom the operator trusts.
func (p *plan) trust(o EnrollOptions) (err error) {
	switch {
	case (o.RootFile == "") == (o.Pin == ""):
		return errors.New("whom to trust: give either a root file or a pin, as hawser-server init printed them")
	case o.RootFile != "":
		p.roots, err = loadRoots(o.RootFile)
	default:
		p.pin, err = identity.ParseSPKI(o.Pin)
	}
	if err != nil {
		return fmt.Errorf("root: %w", err)
	}
	return nil
}

func (p plan) enroll(ctx context.Context, o EnrollOptions) (EnrolledRelay, error) {
	name, err := p.before()
	if err != nil {
		return EnrolledRelay{}, err
	}
	if err := durable.OpenDir(p.dir); err != nil {
		return EnrolledRelay{}, err
	}
	e, err := relay.Enrol(ctx, relay.Config{
		Name: name, Dir: p.relay.Dir, Code: o.Code, Access: p.relay.Access, Ports: p.relay.Ports,
		Roots: p.roots, Dialer: o.Dialer, Now: o.Now,
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

// before returns the name of the relay that the same options have made here
// already, empty when there is none. Anything else that is here is not to be
// touched.
func (p plan) before() (name string, err error) {
	taken := func(name string) error {
		return &fs.PathError{Op: "make", Path: filepath.Join(p.dir, name), Err: fs.ErrExist}
	}
	for _, name := range []string{rootDir, accessDir} {
		if _, err := os.Lstat(filepath.Join(p.dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return "", errors.Join(err, taken(name))
		}
	}
	b, err := readFile(filepath.Join(p.dir, configFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	had, err := decode(configFile, b)
	if err != nil || had.Relay == nil {
		return "", taken(configFile)
	}
	same := p.config
	same.Relay = new(*p.config.Relay)
	same.Relay.Name = had.Relay.Name
	if again, err := encode(same); err != nil || !bytes.Equal(again, b) {
		return "", errors.Join(err, taken(configFile))
	}
	return had.Relay.Name, nil
}
