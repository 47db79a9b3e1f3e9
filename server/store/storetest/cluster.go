//go:build linux

package storetest

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// superuser may do all in the servers of tests, and needs no password.
const superuser = "hawser"

// Cluster is the PostgreSQL of a test binary. Its zero value is ready: nothing is made before a test asks. Its methods
// are safe for concurrent use.
type Cluster struct {
	mu     sync.Mutex // guards the rest
	dir    string     // of all; empty: not made yet
	bin    string
	user   *syscall.Credential
	shared *Server
}

// Run runs the tests and ends what they started. It returns the exit code.
func (c *Cluster) Run(m *testing.M) int {
	code := m.Run()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shared != nil {
		c.shared.kill()
	}
	if err := os.RemoveAll(c.dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// URL makes an empty database on the server that all tests of the binary share, and returns its URL.
func (c *Cluster) URL(t testing.TB) string {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shared == nil {
		s, err := c.newServer(func(string) {})
		if err == nil {
			err = s.start()
		}
		if err != nil {
			t.Fatal(err)
		}
		c.shared = s
	}
	return c.shared.URL(t)
}

// Server starts a server for this test alone, which ends with it.
func (c *Cluster) Server(t testing.TB) *Server {
	t.Helper()
	s, _ := c.ServerIn(t, func(string) {})
	return s
}

// ServerIn is Server in a directory that the test has prepared, by mounting a small disk. It returns the directory.
func (c *Cluster) ServerIn(t testing.TB, prepare func(dir string)) (*Server, string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.newServer(prepare)
	if err == nil {
		// Before it starts: one that never becomes ready has files, too.
		t.Cleanup(func() {
			s.kill()
			if err := removeContent(s.dir); err != nil {
				t.Error(err)
			}
		})
		err = s.start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, s.dir
}

// removeContent leaves the directory: something may be mounted there.
func removeContent(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	for _, name := range names {
		err = errors.Join(err, os.RemoveAll(name))
	}
	return err
}

// newServer copies the files that initdb made once for all servers.
func (c *Cluster) newServer(prepare func(dir string)) (*Server, error) {
	if err := c.prepare(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(c.dir, "")
	if err != nil {
		return nil, err
	}
	prepare(dir)
	s := &Server{dir: dir, bin: c.bin, user: c.user}
	return s, errors.Join(s.own(dir), CopyDir(filepath.Join(c.dir, "data"), s.Data()))
}

// prepare makes the directory and the files of an empty server.
func (c *Cluster) prepare() (err error) {
	if c.dir != "" {
		return nil
	}
	if c.bin, err = programs(); err != nil {
		return err
	}
	if c.user, err = account(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "hawserpg") // a path of a socket has at most 107 bytes, whatever TMPDIR is
	if err != nil {
		return err
	}
	s := &Server{dir: dir, user: c.user}
	if err := s.own(dir); err != nil {
		return err
	}
	// Locale C: text has to sort by its bytes where the schema says so, and a machine of another language must not find
	// another order where it does not. No sync: a power cut during a test loses nothing of worth.
	cmd := exec.Command(filepath.Join(c.bin, "initdb"), "-D", s.Data(), "-U", superuser, "--auth=trust", "--encoding=UTF8", "--locale=C",
		"--data-checksums", "--no-sync")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	c.dir = dir
	return nil
}

// programs asks scripts/postgres, which knows where PostgreSQL is, and says what to do when it is not.
func programs() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find scripts/postgres: the test does not run in the source tree")
		}
		dir = filepath.Dir(dir)
	}
	if err != nil {
		return "", err
	}
	var stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(dir, "scripts", "postgres"))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find PostgreSQL: %w: %s", err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// account is who runs the programs, which refuse root; nil: whoever runs the test.
func account() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	// The one account that every Linux has and that owns nothing.
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// CopyDir copies a directory with modes and owners; the copy must not be there yet. PostgreSQL refuses files that are
// not its user's.
func CopyDir(from, to string) error {
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, out)
	}
	return nil
}

// newName returns a name that no other database has.
func newName() string { return "t" + strings.ToLower(rand.Text()) }

// URL makes an empty database and returns its URL.
func (s *Server) URL(t testing.TB) string {
	t.Helper()
	name := newName()
	if err := s.create(name); err != nil {
		t.Fatal(err)
	}
	return s.url(name)
}

func (s *Server) url(database string) string {
	return fmt.Sprintf("postgres://%s@/%s?host=%s", superuser, database, s.dir)
}

func (s *Server) create(database string) (err error) {
	db, err := sql.Open("pgx", s.url("postgres"))
	if err != nil {
		return err
	}
	_, err = db.Exec("CREATE DATABASE " + database)
	return errors.Join(err, db.Close())
}
