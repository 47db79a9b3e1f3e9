package server

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/server/access"
)

// DomainResetOptions says which key SignDomainReset is to give to which domain.
type DomainResetOptions struct {
	Dir     string           // of an Access Server, as Init has made it
	Domain  string           // a label
	Key     string           // the new domain key, as hawser login prints it with domain-taken
	RootDir string           // with root.key and root.pem; empty: where Init has put them in Dir
	Now     func() time.Time // nil: time.Now
}

// SignedDomainReset is a domain reset that lies ready for an Access Server.
type SignedDomainReset struct {
	identity.DomainReset
	File string // absolute
}

// SignDomainReset signs a domain reset with the root's key and puts it where the Access Server of Dir finds it, running or not
// (access §11). It asks no server, and so not whether there is such a domain. Bad options are a *ConfigError.
func SignDomainReset(o DomainResetOptions) (s SignedDomainReset, err error) {
	now := orNow(o.Now)()
	r := identity.DomainReset{Domain: o.Domain}
	if err := identity.CheckLabel(o.Domain); err != nil {
		return s, configError("domain: %w", err)
	}
	if r.Key, err = identity.ParsePublicKey(o.Key); err != nil {
		return s, configError("key: %w: give the whole key, as hawser login prints it with domain-taken, or hawser domain show", err)
	}
	c, err := Load(filepath.Join(o.Dir, configFile))
	if err != nil {
		return s, err
	}
	if c.Access == nil {
		return s, &ConfigError{File: c.File, Err: errors.New("this server is no Access Server: give --dir of one")}
	}
	if s, err = o.sign(r, c, now); err != nil {
		return s, fmt.Errorf("sign domain reset: %w", err)
	}
	return s, nil
}

func (o DomainResetOptions) sign(r identity.DomainReset, c Config, now time.Time) (s SignedDomainReset, err error) {
	roots, err := loadRoots(c.Root)
	if err != nil {
		return s, err
	}
	root, err := ResetOptions{Dir: o.Dir, RootDir: o.RootDir}.root(now)
	if err != nil {
		return s, err
	}
	dir := filepath.Join(c.Access.Dir, domainResetsDir)
	// As that of a floor reset. A gateway compares it with the serial of its invite, too, so that it is a time (identity §12.2).
	r.Sequence = uint64(max(now.UnixMilli(), 1))
	if _, before, err := access.ReadDomainReset(dir, r.Domain, roots); err == nil && before.Sequence >= r.Sequence {
		r.Sequence = before.Sequence + 1
	}
	raw, err := r.Sign(root)
	if err != nil {
		return s, err
	}
	// Verified as everybody will verify it: a reset of another root would lie there and never be taken.
	if _, err := identity.VerifyDomainReset(raw, roots, r.Domain, 0); err != nil {
		return s, fmt.Errorf("this is another root than that of %s: %w", c.Root, err)
	}
	s = SignedDomainReset{r, filepath.Join(dir, r.Domain)}
	if err := os.MkdirAll(dir, 0o755); err != nil { // readable for the server, whoever runs this
		return s, err
	}
	return s, durable.WriteFile(s.File, raw, 0o644)
}
