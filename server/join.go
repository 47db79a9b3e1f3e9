package server

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
)

// place says in a configuration where the store is, and, for an Access Server
// that joins others, who it is. Its name is in audit chains and certificates
// for ever, so it is one that nobody has had: a random one.
func (o *Options) place(r *raw) (err error) {
	if o.Credentials != "" {
		if o.Credentials, err = filepath.Abs(o.Credentials); err != nil {
			return err
		}
	}
	switch {
	case o.NATS != "":
		r.Access.NATS = &rawNATS{o.NATS, o.Credentials}
	case o.Join != "":
		return errors.New("another Access Server needs the NATS server that the others have")
	case o.Credentials != "":
		return errors.New("credentials without a NATS server")
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

// loadRoot reads the root that init has made, from wherever it is kept.
func loadRoot(dir string, now time.Time) (*identity.Authority, error) {
	p, err := loadPair(dir, rootName)
	if err != nil {
		return nil, err
	}
	if _, err := identity.NewRoots(p.chain[0]); err != nil {
		return nil, err
	}
	if now.Before(p.chain[0].NotBefore) || now.After(p.chain[0].NotAfter) {
		return nil, errors.New("the root is not valid now: look at the clock")
	}
	return &identity.Authority{Cert: p.chain[0], Key: p.key}, nil
}
