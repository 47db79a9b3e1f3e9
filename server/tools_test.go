package server

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"hawser/server/store"
)

// made makes an infrastructure with a store of its own, and returns its configuration.
func made(t *testing.T) Config {
	t.Helper()
	o := options(t)
	o.Store = nil
	m, err := Init(t.Context(), o)
	must(t, err)
	c, err := Load(m.Config)
	must(t, err)
	return c
}

// serving opens the store as a running server does, with its socket, until stop.
func serving(t *testing.T, c Config) (st *store.Store, stop func()) {
	t.Helper()
	st, err := openStore(t.Context(), *c.Access, false, nil)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		serveAdmin(ctx, c.Access.Dir, localAdmin{*c.Access, st, time.Now}, slog.New(slog.DiscardHandler))
	})
	for dialAdmin(c.Access.Dir) == nil {
		runtime.Gosched()
	}
	return st, func() { cancel(); running.Wait(); must(t, st.Close()) }
}

// loseRows deletes a row past the store.
func loseRows(t *testing.T, c Config) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(c.Access.Dir, storeDir, "store.db"))
	must(t, err)
	_, err = db.ExecContext(t.Context(), "DELETE FROM users")
	must(t, errors.Join(err, db.Close()))
}

func addUser(t *testing.T, st *store.Store, name string) {
	t.Helper()
	must(t, st.Update(t.Context(), func(tx *store.Tx) error {
		return tx.Put(&store.User{Domain: "default", Name: name, Created: time.Now()})
	}))
}

func hasUser(t *testing.T, c Config, name string) bool {
	t.Helper()
	st, err := openStore(t.Context(), *c.Access, false, nil)
	must(t, err)
	defer st.Close()
	err = st.View(t.Context(), func(tx *store.Tx) error { return tx.Get(&store.User{Domain: "default", Name: name}) })
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// A backup of a running server, and of one that stands, puts back what was there.
func TestBackupAndRestore(t *testing.T) {
	c := made(t)
	st, stop := serving(t, c)
	addUser(t, st, "anna")
	file := filepath.Join(t.TempDir(), "backup")
	must(t, Backup(t.Context(), c, file, "secret"))
	addUser(t, st, "late")
	if _, err := Restore(t.Context(), c, file, "secret", true, time.Now()); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("under a running server: %v", err)
	}
	stop()
	if _, err := Restore(t.Context(), c, file, "secret", false, time.Now()); !errors.Is(err, store.ErrExists) || !strings.Contains(err.Error(), "--replace") {
		t.Errorf("over a store: %v", err)
	}
	if _, err := Restore(t.Context(), c, file, "wrong", true, time.Now()); err == nil {
		t.Error("with another passphrase")
	}
	kept, err := Restore(t.Context(), c, file, "secret", true, time.Now())
	must(t, err)
	if !hasUser(t, c, "anna") || hasUser(t, c, "late") {
		t.Error("another state than that of the backup")
	}
	if _, err := os.Stat(filepath.Join(kept, "store.db")); err != nil {
		t.Errorf("the store from before: %v", err)
	}
	must(t, Backup(t.Context(), c, file, ""))
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// A store that lost rows is said to be damaged by check, beside a running server too, until an operator accepts it.
func TestAcceptThroughTheSocket(t *testing.T) {
	c := made(t)
	loseRows(t, c)
	_, stop := serving(t, c)
	defer stop()
	check := func() error { _, err := checkStore(t.Context(), *c.Access, time.Now()); return err }
	if err := check(); !errors.Is(err, store.ErrDamaged) || !strings.Contains(err.Error(), "users") {
		t.Errorf("check: %v", err)
	}
	must(t, AcceptStore(t.Context(), c))
	if err := check(); err != nil {
		t.Errorf("accepted: %v", err)
	}
}

// From SQLite to PostgreSQL and back, with the server running: nothing is lost, and the old one takes nothing any more.
func TestMoveThereAndBack(t *testing.T) {
	t.Attr("id", "S-move")
	c := made(t)
	for i, url := range []string{postgres.URL(t), ""} {
		name := []string{"anna", "bert"}[i]
		st, stop := serving(t, c)
		addUser(t, st, name)
		must(t, MoveStore(t.Context(), c, url))
		err := st.Update(t.Context(), func(tx *store.Tx) error { return tx.Put(&store.User{Domain: "default", Name: "lost"}) })
		if !errors.Is(err, store.ErrMoved) {
			t.Errorf("written to the old store: %v", err)
		}
		if _, err := checkStore(t.Context(), *c.Access, time.Now()); err == nil || !strings.Contains(err.Error(), "was moved: start the server anew") {
			t.Errorf("check beside the server: %v", err)
		}
		stop()
		old, err := openStore(t.Context(), *c.Access, false, nil) // by a configuration of yesterday
		must(t, err)
		if old.Health().Lost == "" {
			t.Error("the old store opens as if nothing had been moved")
		}
		must(t, old.Close())
		c, err = Load(c.File)
		must(t, err)
		if c.Access.Store != url {
			t.Fatalf("the configuration names %q", c.Access.Store)
		}
	}
	for _, name := range []string{"anna", "bert"} {
		if !hasUser(t, c, name) {
			t.Errorf("%s is lost", name)
		}
	}
	if _, err := os.Stat(filepath.Join(c.Access.Dir, adminSocket)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}
