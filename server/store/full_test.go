//go:build linux

package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallDisks runs a test in a process of its own, which may mount; it returns true in that process.
func smallDisks(t *testing.T) bool {
	t.Helper()
	const marker = "HAWSER_STORE_MOUNTS"
	if os.Getenv(marker) != "" {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		const sysAdmin = 21
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.AmbientCaps = []uintptr{sysAdmin}
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}

func mountSmall(t testing.TB, dir string, mib int) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=700,uid=%d", mib, os.Getuid())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// fill leaves no room on the disk of a directory; the function that it returns does.
func fill(t testing.TB, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size > 0; size /= 2 {
		for b := make([]byte, size); err == nil; {
			_, err = f.Write(b)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	f.Close()
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// untilFull writes until that fails, and returns how many were acknowledged, and the error.
func untilFull(s *Store, prefix string) (n int, err error) {
	for ; n < 10_000; n++ {
		err = s.Update(context.Background(), func(tx *Tx) error {
			d := device(fmt.Sprint(prefix, n))
			d.Chain = strings.Repeat("chain ", 5000)
			return tx.Insert(d)
		})
		if err != nil {
			break
		}
	}
	return n, err
}

// devicesOf counts the devices whose names begin with prefix.
func devicesOf(t testing.TB, s *Store, prefix string) (n int) {
	t.Helper()
	view(t, s, func(tx *Tx) error {
		list, err := tx.Devices(DeviceFilter{Domain: "plant", Query: prefix, Limit: 100_000})
		n = len(list)
		return err
	})
	return n
}

// A disk that is full refuses what is written, in words, and nothing else: what is there can be read, and when there
// is room again everything goes on.
func TestAFullDiskHeals(t *testing.T) {
	t.Attr("id", "S-full")
	if !smallDisks(t) {
		return
	}
	t.Run("sqlite", func(t *testing.T) {
		disk := t.TempDir()
		mountSmall(t, disk, 8)
		s := inDir(t, filepath.Join(disk, "store"))
		insert(t, s, device("before"))
		for round := range 3 {
			free := fill(t, disk)
			prefix := fmt.Sprint("round ", round, ", ")
			n, err := untilFull(s, prefix)
			if !errors.Is(err, ErrFull) {
				t.Errorf("%v", err)
			}
			if got := devicesOf(t, s, prefix); got < n || got > n+1 { // what failed may be there
				t.Errorf("%d devices of %d that were acknowledged", got, n)
			}
			if _, err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "make room") {
				t.Errorf("check: %v", err)
			}
			free()
			insert(t, s, device(fmt.Sprint("after ", round)))
			healthy(t, s)
		}
	})
	t.Run("sqlite, at its own limit and read-only", func(t *testing.T) {
		s := inDir(t, newDir(t))
		for pragma, undo := range map[string]string{"max_page_count=60": "max_page_count=1000000", "query_only=1": "query_only=0"} {
			set := func(p string) {
				if _, err := s.engine.write.ExecContext(t.Context(), "PRAGMA "+p); err != nil {
					t.Fatal(err)
				}
			}
			set(pragma)
			n, err := untilFull(s, pragma)
			if !errors.Is(err, ErrFull) {
				t.Errorf("%s: %v", pragma, err)
			}
			if got := devicesOf(t, s, pragma); got != n {
				t.Errorf("%d devices of %d that were acknowledged", got, n)
			}
			set(undo)
			insert(t, s, device("after "+pragma))
			healthy(t, s)
		}
	})
	t.Run("postgres", func(t *testing.T) {
		server, disk := cluster.ServerIn(t, func(dir string) { mountSmall(t, dir, 100) })
		r := &rig{url: server.URL(t), dirs: make(map[string]string)}
		s := r.open(t, "a1")
		insert(t, s, device("before"))
		for round := range 3 {
			free := fill(t, disk)
			prefix := fmt.Sprint("round ", round, ", ")
			n, err := untilFull(s, prefix)
			if !errors.Is(err, ErrFull) && !errors.Is(err, ErrAway) { // without room for its log the server ends itself
				t.Errorf("%v", err)
			}
			t.Logf("after %d: %v", n, err)
			free()
			server.Restart(t)
			if got := devicesOf(t, s, prefix); got < n || got > n+1 {
				t.Errorf("%d devices of %d that were acknowledged", got, n)
			}
			insert(t, s, device(fmt.Sprint("after ", round)))
			healthy(t, s)
		}
	})
	t.Run("postgres, read-only", func(t *testing.T) {
		r := newPostgres(t)
		s := r.open(t, "a1")
		insert(t, s, device("before"))
		end(t, s)
		o := r.options(t, "a1")
		o.URL += "&default_transaction_read_only=on"
		s = open(t, o)
		defer s.Close()
		if _, err := untilFull(s, "x"); !errors.Is(err, ErrFull) {
			t.Errorf("%v", err)
		}
		if n := devicesOf(t, s, "before"); n != 1 {
			t.Errorf("%d devices", n)
		}
		healthy(t, s)
	})
}

// A process that could not write when it opened the store writes as soon as it can.
func TestAStoreThatOpensReadOnlyHeals(t *testing.T) {
	r := newPostgres(t)
	s := r.open(t, "a1")
	insert(t, s, device("before"))
	end(t, s)
	database := strings.TrimPrefix(strings.SplitN(r.url, "?", 2)[0], "postgres://hawser@/")
	admin := newPostgres(t).open(t, "a1")
	set := func(value string) {
		_, err := admin.engine.write.ExecContext(context.Background(), "ALTER DATABASE "+database+" SET default_transaction_read_only="+value)
		if err != nil {
			t.Fatal(err)
		}
	}
	set("on")
	s = r.open(t, "a1")
	if err := note(s, 1); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
	set("off")
	s.engine.write.SetConnMaxLifetime(time.Nanosecond) // the setting is that of new connections
	if err := note(s, 2); err != nil {
		t.Error(err)
	}
	healthy(t, s)
}
