package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/server/store"
)

// ReadDomainReset reads the domain reset for a domain from a directory with one file for each, named by its label (access
// §11), and verifies it. The error is fs.ErrNotExist if there is none.
func ReadDomainReset(dir, domain string, roots *identity.Roots) (raw []byte, r identity.DomainReset, err error) {
	if err := identity.CheckLabel(domain); err != nil { // it becomes part of a path
		return nil, r, err
	}
	path := filepath.Join(dir, domain)
	f, err := os.Open(path)
	if err != nil {
		return nil, r, err
	}
	defer f.Close()
	raw, err = io.ReadAll(io.LimitReader(f, int64(identity.DomainResetBytes)+1))
	if err == nil {
		r, err = identity.VerifyDomainReset(raw, roots, domain, 0)
	}
	if err != nil {
		return nil, r, fmt.Errorf("read domain reset %s: %w", path, err)
	}
	return raw, r, nil
}

// takeResets looks for resets of all domains that an operator has laid ready.
func (s *Server) takeResets(ctx context.Context) {
	if s.cfg.DomainResets == "" {
		return
	}
	files, err := os.ReadDir(s.cfg.DomainResets)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.badReset("", err)
	}
	for _, f := range files {
		if identity.CheckLabel(f.Name()) == nil {
			s.takeReset(ctx, f.Name())
		}
	}
}

// takeReset applies the reset that lies ready for a domain, if there is a new one: the domain has another key then, and
// everybody is told. An error leaves all as it is; the file stays, and the next who comes is a new try.
func (s *Server) takeReset(ctx context.Context, domain string) {
	if s.cfg.DomainResets == "" {
		return
	}
	raw, r, err := ReadDomainReset(s.cfg.DomainResets, domain, s.cfg.Roots)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var o *owner
	if err == nil {
		o, err = s.owner(ctx, domain)
	}
	if err == nil && (o.reset == nil || r.Sequence > o.sequence) {
		err = s.applyReset(ctx, r, raw)
	}
	if err != nil && ctx.Err() == nil {
		s.badReset(domain, err)
	}
}

func (s *Server) badReset(domain string, err error) {
	if s.badResets.Allow(time.Now()) {
		s.log.Error("domain reset is not taken", "domain", domain, "err", err)
	}
}

// applyReset gives a domain the key of a reset, once: its sequence stays, so that a change by the new key is not undone by
// the file that is still there.
func (s *Server) applyReset(ctx context.Context, r identity.DomainReset, raw []byte) error {
	return s.changeOwner(ctx, r.Domain, func(tx *store.Tx, o *owner) (k kept, err error) {
		if o.reset != nil && r.Sequence <= o.sequence {
			return k, nil // another one has taken it
		}
		d := store.Domain{Name: r.Domain}
		if err := tx.Get(&d); errors.Is(err, store.ErrNotFound) {
			return k, errors.New("there is no such domain")
		} else if err != nil {
			return k, err
		}
		was := d.Key.SPKI()
		d.Key = r.Key
		err = errors.Join(tx.Put(&d),
			tx.Put(&store.DomainReset{Domain: r.Domain, Key: r.Key, Sequence: int64(r.Sequence), Reset: raw, At: s.now().UTC()}),
			tx.Append(store.Record{Time: s.now(), Domain: r.Domain, Actor: actorOperator, Action: actionDomainReset, Result: resultOK,
				Detail: "key " + r.Key.SPKI().String() + " for " + was.String()}))
		k.people = true
		if err == nil {
			s.log.Warn("a domain has another key, by the word of the root", "domain", r.Domain, "was", was, "is", r.Key.SPKI())
		}
		return k, err
	})
}

// readReset gives an owner the last reset that was applied.
func (o *owner) readReset(tx *store.Tx) error {
	row := store.DomainReset{Domain: o.Domain}
	err := tx.Get(&row)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	o.reset, o.sequence, o.resetTo = row.Reset, uint64(row.Sequence), row.Key
	return err
}
