package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/server/access"
)

const (
	// What Rotate has made lies in rotatedDir of access.dir, until the server starts and takes it. The directory appears
	// whole, by one rename.
	rotatedDir  = "rotated"
	rotatedList = "refused-keys." // and the second from which it is handed out
	refusedDir  = "refused-keys"

	rotateGrace = 7 * 24 * time.Hour // in which what was issued by the old key still counts
)

// RotateOptions says which Access Server gets new keys.
type RotateOptions struct {
	Dir     string           // of an Access Server, as Init has made it
	RootDir string           // with root.key and root.pem; empty: where Init has put them in Dir
	AtOnce  bool             // the old keys count no more from now on, and not only in 7 days
	Now     func() time.Time // nil: time.Now
}

// Rotated is what Rotate has made.
type Rotated struct {
	Access   string          `json:"access"`         // its name
	CA       identity.SPKI   `json:"ca_spki_sha256"` // of the new issuing key
	Refused  []identity.SPKI `json:"refused"`        // the old issuing, time and grant key
	From     time.Time       `json:"from"`           // when the server begins to say so, to the second
	Sequence uint64          `json:"sequence"`
}

// Rotate makes another issuing, time and grant key for an Access Server, under the same root, and has the root refuse the old
// ones (identity §18). All of it lies ready until the server starts, which takes it, also after a power cut in between; until
// then nothing has changed. It needs neither the store nor a running server. Bad options are a *ConfigError.
func Rotate(o RotateOptions) (r Rotated, err error) {
	now := orNow(o.Now)()
	c, err := Load(filepath.Join(o.Dir, configFile))
	if err != nil {
		return r, err
	}
	if c.Access == nil {
		return r, &ConfigError{File: c.File, Err: errors.New("this server is no Access Server: give --dir of one")}
	}
	roots, err := loadRoots(c.Root)
	if err != nil {
		return r, fmt.Errorf("rotate keys: %w", err)
	}
	root, err := ResetOptions{Dir: o.Dir, RootDir: o.RootDir}.root(now)
	if err != nil {
		return r, fmt.Errorf("rotate keys: %w", err)
	}
	if r, err = o.rotate(c, root, roots, now); err != nil {
		return r, fmt.Errorf("rotate keys: %w", err)
	}
	return r, nil
}

func (o RotateOptions) rotate(c Config, root *identity.Authority, roots *identity.Roots, now time.Time) (r Rotated, err error) {
	dir := c.Access.Dir
	if _, err := os.Lstat(filepath.Join(dir, rotatedDir)); !errors.Is(err, fs.ErrNotExist) {
		return r, errors.Join(err, fmt.Errorf("%s is there: start the server first, which takes what was made before", filepath.Join(dir, rotatedDir)))
	}
	old, err := loadAccessKeys(dir, c.Access.Name, roots, now)
	if err != nil {
		return r, err
	}
	r = Rotated{Access: c.Access.Name.ID, From: now.Add(rotateGrace)}
	if o.AtOnce {
		r.From = now
	}
	r.From = r.From.UTC().Truncate(time.Second)
	for _, k := range []credential.Credential{old.issuing, old.time, old.grant} {
		r.Refused = append(r.Refused, identity.CertSPKI(k.Chain[0]))
	}
	raw, list, err := o.refuse(dir, root, roots, r.Refused, now)
	if err != nil {
		return r, err
	}
	r.Sequence = list.Sequence

	// Beside its place, as Init does: makeKeys puts the keys into accessDir, and the root beside it.
	stage, err := os.MkdirTemp(dir, ".rotate-*")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	made := filepath.Join(stage, accessDir)
	if err := durable.OpenDir(made); err != nil {
		return r, err
	}
	if err := makeKeys(root, stage, c.Access.Name, now); err != nil {
		return r, err
	}
	fresh, err := loadAccessKeys(made, c.Access.Name, roots, now)
	if err != nil {
		return r, fmt.Errorf("this is another root than that of %s: %w", c.Root, err)
	}
	r.CA = identity.CertSPKI(fresh.issuing.Chain[0])
	if err := durable.WriteFile(filepath.Join(made, rotatedList+strconv.FormatInt(r.From.Unix(), 10)), raw, 0o644); err != nil {
		return r, err
	}
	return r, durable.Rename(made, filepath.Join(dir, rotatedDir))
}

// refuse adds keys to what the root has refused until now, handed out or not.
func (o RotateOptions) refuse(dir string, root *identity.Authority, roots *identity.Roots, keys []identity.SPKI, now time.Time) ([]byte, identity.RefusedKeys, error) {
	const never = 1 << 40 // seconds: also what is not due yet
	_, before, err := access.ReadRefusedKeys(filepath.Join(dir, refusedDir), time.Unix(never, 0), roots)
	if err != nil {
		return nil, before, err
	}
	list := identity.RefusedKeys{Keys: slices.Concat(before.Keys, keys), Sequence: max(uint64(now.UnixMilli()), before.Sequence+1)}
	raw, err := list.Sign(root)
	if err == nil {
		list, err = identity.VerifyRefusedKeys(raw, roots)
	}
	return raw, list, err
}

// takeRotated gives the Access Server of dir the keys that Rotate has made for it, if there are any. A start that was cut off
// is continued by the next one: what was moved is not there any more, and the directory goes last.
func takeRotated(dir string) (taken bool, err error) {
	from := filepath.Join(dir, rotatedDir)
	files, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := os.MkdirAll(filepath.Join(dir, refusedDir), 0o755); err != nil {
		return false, err
	}
	for _, f := range files {
		to := filepath.Join(dir, f.Name())
		if at, ok := strings.CutPrefix(f.Name(), rotatedList); ok {
			to = filepath.Join(dir, refusedDir, at)
		}
		if err := durable.Rename(filepath.Join(from, f.Name()), to); err != nil {
			return false, err
		}
	}
	return true, nil
}

// enterRotated writes the new issuing key into the store, by which the other nodes know this one, and then forgets that keys
// were taken. The store is opened as init does it: this process has no lease yet, and one before it is gone.
func (r *running) enterRotated(ctx context.Context, c AccessConfig, issuing *x509.Certificate) (err error) {
	st := r.Store
	if st == nil {
		if st, err = openStore(ctx, c, false, nil); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, st.Close()) }()
	}
	if err := enterNode(ctx, st, c.Name, identity.CertSPKI(issuing), r.Config.Hosts, r.Config.Ports); err != nil {
		return err
	}
	return os.Remove(filepath.Join(c.Dir, rotatedDir))
}
