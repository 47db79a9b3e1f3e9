package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/server/access"
)

// A Row is one thing that Check looked at.
type Row struct {
	Name string // root, clock, access directory, keys, store, relay directory, relay
	OK   bool
	Text string // what was found, or what is wrong
}

// Check looks at everything that a checked configuration points to, and changes
// nothing. It may be used beside a running server, whose store it then leaves
// alone. It blocks while the store opens.
func Check(ctx context.Context, c Config, now time.Time) []Row {
	rows := []Row{look("root", func() (string, error) { return checkRoot(c, now) })}
	roots, err := loadRoots(c.Root)
	if err != nil {
		return rows // everything else hangs on it
	}
	rows = append(rows, look("clock", func() (string, error) { return checkClock(roots, now) }))
	if a := c.Access; a != nil {
		rows = append(rows,
			look("access directory", func() (string, error) { return checkPrivate(a.Dir) }),
			look("keys", func() (string, error) { return checkKeys(*a, roots, now) }),
			look("store", func() (string, error) { return checkStore(ctx, *a, now) }))
	}
	if r := c.Relay; r != nil {
		rows = append(rows,
			look("relay directory", func() (string, error) { return checkPrivate(r.Dir) }),
			look("relay", func() (string, error) { return checkRelay(*r, roots, now) }))
	}
	return rows
}

func look(name string, check func() (string, error)) Row {
	text, err := check()
	if err != nil {
		return Row{name, false, oneLine(err.Error())}
	}
	return Row{name, true, text}
}

func checkRoot(c Config, now time.Time) (string, error) {
	roots, err := loadRoots(c.Root)
	if err != nil {
		return "", err
	}
	text := "pins"
	for _, cert := range roots.Certificates() {
		if now.After(cert.NotAfter) {
			return "", fmt.Errorf("root expired at %s", cert.NotAfter.Format(time.RFC3339))
		}
		text += " " + identity.CertSPKI(cert).String()
	}
	key := filepath.Join(filepath.Dir(c.File), rootDir, rootName+".key")
	if _, err := os.Lstat(key); err == nil {
		text += "; " + key + " is not needed to run: keep it somewhere else"
	}
	return text, nil
}

// checkPrivate does not use durable.OpenDir, which tidies up what a running
// server may just be writing.
func checkPrivate(dir string) (string, error) {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return "", err
	case !info.IsDir():
		return "", fmt.Errorf("%s is not a directory", dir)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0: // there, lists of rights decide
		return "", fmt.Errorf("%s has mode %04o, change it to 0700: %w", dir, info.Mode().Perm(), durable.ErrExposed)
	}
	return dir + " is private", nil
}

func checkKeys(c AccessConfig, roots *identity.Roots, now time.Time) (string, error) {
	k, err := loadAccessKeys(c.Dir, c.Name, roots, now)
	if err != nil {
		return "", err
	}
	return "issuing, time and grant key match their certificates; issuing until " +
		k.issuing.chain[0].NotAfter.Format(time.RFC3339), nil
}

func checkStore(ctx context.Context, c AccessConfig, now time.Time) (text string, err error) {
	if len(c.NATS.URLs) > 0 {
		return access.CheckNATS(ctx, c.NATS, c.ClockSet, now)
	}
	if _, err := os.Stat(filepath.Join(c.Dir, storeDir)); err != nil {
		return "", err // opening it would make one
	}
	store, err := openEmbedded(c.Dir)
	if errors.Is(err, access.ErrInUse) {
		return "in use by a running server, not opened", nil
	}
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if text, err = store.Check(ctx); err == nil {
		err = access.CheckClock(ctx, store, c.ClockSet, now)
	}
	return text, err
}

func checkRelay(c RelayConfig, roots *identity.Roots, now time.Time) (string, error) {
	chain, err := loadChain(filepath.Join(c.Dir, "identity.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		return "not enrolled yet: run does it", nil
	}
	if err != nil {
		return "", err
	}
	peer, err := identity.VerifyIgnoringDates(chain, roots, identity.KindRelay)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("enrolled as %s until %s", peer.Name.ID, chain[0].NotAfter.Format(time.RFC3339))
	if now.After(chain[0].NotAfter) {
		text += ", which is over: run renews it"
	}
	return text, nil
}

// checkClock finds a clock that is plainly wrong: before the root was made, or
// after it has ended.
func checkClock(roots *identity.Roots, now time.Time) (string, error) {
	for _, cert := range roots.Certificates() {
		if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			return "", fmt.Errorf("%s is outside the root's life, %s to %s: set the clock", now.UTC().Format(time.RFC3339),
				cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339))
		}
	}
	return now.UTC().Format(time.RFC3339) + " is plausible", nil
}
