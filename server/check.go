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
	"hawser/internal/answer"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/server/store"
)

// A Row is one thing that Check looked at.
type Row struct {
	Name string // root, clock, access directory, keys, store, relay directory, relay
	OK   bool
	Text string // what was found, or what is wrong
}

// Check looks at everything that a checked configuration points to, and changes nothing. It may be used beside a
// running server, whose store it then leaves alone. It blocks while the store opens. It goes on after a bad row, so
// that an operator sees all that is wrong at once, except without a root.
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

// The line is filtered, since it may hold text of a damaged file, and a terminal shows it.
func look(name string, check func() (string, error)) Row {
	text, err := check()
	if err != nil {
		return Row{name, false, answer.Line(err, "")}
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
	// Where init has put it. It is no fault: a first try on one machine has it there.
	key := filepath.Join(filepath.Dir(c.File), rootDir, rootName+".key")
	if _, err := os.Lstat(key); err == nil {
		text += "; " + key + " is not needed to run: keep it somewhere else"
	}
	return text, nil
}

// checkPrivate does not use durable.OpenDir, which makes what is missing. Check changes nothing, so a mode that is too
// wide is told and not mended.
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

// checkKeys loads them as run does, so that what check accepts also starts.
func checkKeys(c AccessConfig, roots *identity.Roots, now time.Time) (string, error) {
	k, err := loadAccessKeys(c.Dir, c.Name, roots, now)
	if err != nil {
		return "", err
	}
	return "issuing, time and grant key match their certificates; issuing until " +
		k.issuing.Chain[0].NotAfter.Format(time.RFC3339), nil
}

// A server that runs is asked by its socket, since SQLite's directory is for one process at a time.
func checkStore(ctx context.Context, c AccessConfig, now time.Time) (text string, err error) {
	if _, err := os.Stat(filepath.Join(c.Dir, storeDir)); err != nil {
		return "", err // opening it would make one
	}
	err = withStoreAdmin(ctx, c, true, now, func(k storeAdmin) (err error) {
		text, err = k.Check(ctx)
		return err
	})
	if errors.Is(err, store.ErrInUse) {
		return "in use by a server that does not answer on its socket, not opened", nil
	}
	return text, err
}

// An identity that is over is no fault, because run renews it by itself.
func checkRelay(c RelayConfig, roots *identity.Roots, now time.Time) (string, error) {
	chain, err := credential.Load(filepath.Join(c.Dir, "identity.pem"), identity.ParseChain)
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

// checkClock finds a clock that is plainly wrong: before the root was made, or after it has ended. It asks no time
// server: check must work on a machine without a network.
func checkClock(roots *identity.Roots, now time.Time) (string, error) {
	for _, cert := range roots.Certificates() {
		if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			return "", fmt.Errorf("%s is outside the root's life, %s to %s: set the clock", now.UTC().Format(time.RFC3339),
				cert.NotBefore.Format(time.RFC3339), cert.NotAfter.Format(time.RFC3339))
		}
	}
	return now.UTC().Format(time.RFC3339) + " is plausible", nil
}
