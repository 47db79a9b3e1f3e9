package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/internal/thieftest"
	"hawser/internal/wait"
	"hawser/server/store"
	"hawser/transport"
)

// thiefPatience bounds how long the gateway and the relays take to find the server that was put in the place of the other.
const thiefPatience = time.Minute

// stealServer shows what a stolen Access Server is worth. The copy has every key but the root's, answers on the same ports,
// and says that its thief is an admin. The gateway says no. Then the honest server goes on.
func (d *demo) stealServer(ctx context.Context) (string, error) {
	if err := d.stopServer(); err != nil {
		return "", err
	}
	if err := copyPrivate(d.path("server"), d.path("stolen")); err != nil {
		return "", fmt.Errorf("copy the server's directory: %w", err)
	}
	thief, err := d.forge(ctx)
	if err != nil {
		return "", err
	}
	d.out.note("a copy of " + d.path("server") + " says that mallory is an admin, by a domain key of his own")
	if err := d.serve(ctx, d.path("stolen", "server.yaml")); err != nil {
		return "", err
	}
	if err := thief.Login(ctx, d.access()); err != nil {
		return "", fmt.Errorf("the stolen server does not take its thief: %w", err)
	}
	d.out.note("the stolen server has let him log in, and offers him the gateway")
	refusal, err := d.refused(ctx, thief)
	if err != nil {
		return "", err
	}
	d.out.note("the gateway: " + refusal.Error())
	if err := errors.Join(d.stopServer(), os.RemoveAll(d.path("stolen"))); err != nil {
		return "", err
	}
	return "The server carries, and the owner decides: without the domain key, which was never on it, the thief is nobody.",
		d.serve(ctx, d.serverConfig())
}

// copyPrivate copies a directory with its modes: the programs refuse keys that others can read.
func copyPrivate(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.Mkdir(filepath.Join(to, below), info.Mode().Perm())
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, below), b, info.Mode().Perm())
	})
}

// forge changes the copy of the store.
func (d *demo) forge(ctx context.Context) (*thieftest.Thief, error) {
	b, err := os.ReadFile(d.infra.RootFile)
	if err != nil {
		return nil, err
	}
	roots, err := identity.ParseRoots(b)
	if err != nil {
		return nil, err
	}
	o := store.Options{Dir: d.path("stolen", "access", "store"), Node: "access1"}
	return thieftest.Forge(ctx, o, "default", d.device.UID, roots)
}

// refused returns what the gateway says to the thief, as soon as it and a relay are back.
func (d *demo) refused(ctx context.Context, thief *thieftest.Thief) (refusal, err error) {
	ctx, cancel := context.WithTimeout(ctx, thiefPatience)
	defer cancel()
	for {
		s, err := thief.Open(ctx, d.access(), thief.Chain())
		switch {
		case err == nil:
			s.Close()
			return nil, errors.New("the gateway has let the thief in")
		case transport.ReasonOf(err) == transport.NotStated:
			return err, nil
		case !wait.Sleep(ctx, 500*time.Millisecond):
			return nil, fmt.Errorf("the gateway has not answered the thief: %w", err)
		}
	}
}
