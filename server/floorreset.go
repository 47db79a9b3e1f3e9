package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/server/access"
)

// ResetOptions says whose floor SignFloorReset is to lower.
type ResetOptions struct {
	Dir     string           // of an Access Server, as Init has made it
	UID     string           // of the device
	To      string           // the new floor: RFC 3339, or a date, which begins at 0:00 UTC
	RootDir string           // with root.key and root.pem; empty: where Init has put them in Dir
	Now     func() time.Time // nil: time.Now
}

// SignedReset is a floor reset that lies ready for its device.
type SignedReset struct {
	identity.FloorReset
	File string // absolute
}

// SignFloorReset signs a floor reset with the root's key and puts it where the Access Server of Dir finds it, running
// or not (access §10). It asks no server, and so not whether there is such a device. Bad options are a *ConfigError.
func SignFloorReset(o ResetOptions) (SignedReset, error) {
	now := orNow(o.Now)()
	r, err := o.check(now)
	if err != nil {
		return SignedReset{}, configError("%w", err)
	}
	c, err := Load(filepath.Join(o.Dir, configFile))
	if err != nil {
		return SignedReset{}, err
	}
	if c.Access == nil {
		return SignedReset{}, &ConfigError{File: c.File, Err: errors.New("this server is no Access Server: give --dir of one")}
	}
	signed, err := o.sign(r, c, now)
	if err != nil {
		return SignedReset{}, fmt.Errorf("sign floor reset: %w", err)
	}
	return signed, nil
}

// mostAhead is by how much a new floor may be in the future: dates are meant in somebody's time zone.
const mostAhead = 24 * time.Hour

// check takes a date as well as a time: who needs this command knows the day, and hours do not matter for a floor.
func (o ResetOptions) check(now time.Time) (r identity.FloorReset, err error) {
	if r.UID, err = identity.ParseUID(o.UID); err != nil {
		return r, fmt.Errorf("uid: %w: give the 32 digits that hawser device list --json shows", err)
	}
	if r.To, err = time.Parse(time.RFC3339, o.To); err != nil {
		r.To, err = time.Parse(time.DateOnly, o.To)
	}
	switch {
	case err != nil:
		return r, fmt.Errorf("to: %.40q is neither a date nor a time like %s", o.To, now.UTC().Format(time.RFC3339))
	case r.To.After(now.Add(mostAhead)):
		return r, fmt.Errorf("to: %s is in the future, where the device would stay offline: give a time that has been, or set this machine's clock", r.To.UTC().Format(time.RFC3339))
	case r.To.Unix() < 0:
		return r, fmt.Errorf("to: %s is before 1970", o.To)
	}
	r.To = r.To.UTC()
	return r, nil
}

// sign makes the reset and stores it.
func (o ResetOptions) sign(r identity.FloorReset, c Config, now time.Time) (s SignedReset, err error) {
	roots, err := loadRoots(c.Root)
	if err != nil {
		return s, err
	}
	root, err := o.root(now)
	if err != nil {
		return s, err
	}
	dir := filepath.Join(c.Access.Dir, resetsDir)
	r.Sequence = nextSequence(dir, r.UID, roots, now)
	raw, err := r.Sign(root)
	if err != nil {
		return s, err
	}
	// Verified as a device will verify it: a reset of another root would lie there and never be taken.
	if _, err := identity.VerifyFloorReset(raw, roots, r.UID); err != nil {
		return s, fmt.Errorf("this is another root than that of %s: %w", c.Root, err)
	}
	s = SignedReset{r, filepath.Join(dir, r.UID.String())}
	// Readable for the server, whoever runs this: a reset is no secret, and the directory above is private.
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return s, err
	}
	return s, durable.WriteFile(s.File, raw, 0o644)
}

// root reads the root's key, which should be somewhere else most of the time.
func (o ResetOptions) root(now time.Time) (*identity.Authority, error) {
	dir := o.RootDir
	if dir == "" {
		dir = filepath.Join(o.Dir, rootDir)
	}
	root, err := loadRoot(dir, now)
	if errors.Is(err, fs.ErrNotExist) && o.RootDir == "" {
		err = fmt.Errorf("%w: only the root can sign it, and its key is not where init has put it: give --root-dir with the directory that holds root.key and root.pem", err)
	}
	return root, err
}

// nextSequence is greater than that of every reset before (identity §10). Time alone would not do when this machine's
// clock was set back, and counting alone not when its files come from a backup.
func nextSequence(dir string, uid identity.UID, roots *identity.Roots, now time.Time) uint64 {
	sequence := uint64(max(now.UnixMilli(), 0))
	if _, before, err := access.ReadFloorReset(dir, uid, roots); err == nil && before.Sequence >= sequence {
		sequence = before.Sequence + 1
	}
	return sequence
}
