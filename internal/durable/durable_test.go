//go:build unix

package durable

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestWriteFileReplacesAndSetsTheMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device.key")
	for _, content := range []string{"old", "new and longer", ""} {
		if err := WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Fatalf("read %q, %v; want %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v; want 0640", info.Mode(), err)
	}
	if names := list(t, filepath.Dir(path)); len(names) != 1 {
		t.Errorf("directory holds %q, want the file alone", names)
	}
}

// What root writes into a service's directory, the service must be able to read. Nobody else can give a file away: there
// the owner is who wrote it, as ever.
func TestFileBelongsToTheOwnerOfItsDirectory(t *testing.T) {
	dir := t.TempDir()
	_ = os.Chown(dir, 4711, 4712) // only root may
	path := filepath.Join(dir, "file")
	if err := WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var want, got syscall.Stat_t
	if err := errors.Join(syscall.Stat(dir, &want), syscall.Stat(path, &got)); err != nil {
		t.Fatal(err)
	}
	if got.Uid != want.Uid || got.Gid != want.Gid {
		t.Errorf("file of %d:%d in a directory of %d:%d", got.Uid, got.Gid, want.Uid, want.Gid)
	}
}

// A command beside the service opens its directory at any moment of a write.
func TestWriteFileWithstandsAnOpenDirAtEachStep(t *testing.T) {
	for _, step := range []string{"create", "chmod", "write", "sync file", "rename"} {
		dir, opened := filepath.Join(t.TempDir(), "state"), false
		if err := OpenDir(dir); err != nil {
			t.Fatal(err)
		}
		w := writer{after: func(at string) {
			if at == step && !opened {
				opened = true
				if err := OpenDir(dir); err != nil {
					t.Error(err)
				}
			}
		}}
		path := filepath.Join(dir, "device.key")
		if err := w.writeFile(path, []byte("new"), 0o600); err != nil {
			t.Errorf("opened after %s: %v", step, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "new" || !opened {
			t.Errorf("opened after %s: read %q, %v", step, got, err)
		}
	}
}

func TestOpenDirSharesTheTidying(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				if err := errors.Join(OpenDir(dir), WriteFile(filepath.Join(dir, "f"), nil, 0o600)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestWriteFileThatFailsLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "taken"), []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if err := WriteFile(filepath.Join(dir, "missing", "file"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v, want fs.ErrNotExist", err)
	}
	if names := list(t, dir); !slices.Equal(names, []string{"taken"}) {
		t.Errorf("directory holds %q", names)
	}
}

// A cut between any two steps, with the temporary file torn anywhere, leaves the old or the new file.
func TestCutAtEachStepLeavesOldOrNew(t *testing.T) {
	dir, before, after := t.TempDir(), []byte("the old bytes"), []byte("the new bytes, more of them")
	if err := WriteFile(filepath.Join(dir, "f"), before, 0o600); err != nil {
		t.Fatal(err)
	}
	var steps []string
	cut := func(step string) {
		steps = append(steps, step)
		want := before
		if strings.HasPrefix(step, "rename") || strings.HasPrefix(step, "sync dir") {
			want = after
		}
		for torn := range len(after) + 1 {
			survivor := copyDir(t, dir, int64(torn))
			if err := OpenDir(survivor); err != nil {
				t.Fatalf("after %s: %v", step, err)
			}
			got, err := ReadPrivate(filepath.Join(survivor, "f"), 1<<10)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("after %s: %q, %v; want %q", step, got, err, want)
			}
			if names := list(t, survivor); len(names) != 1 {
				t.Errorf("after %s: left behind: %q", step, names)
			}
		}
	}
	if err := (writer{after: cut}).writeFile(filepath.Join(dir, "f"), after, 0o600); err != nil {
		t.Fatal(err)
	}
	if want := []string{"create", "chmod", "write", "sync file", "rename", "sync directory"}; !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
}

func TestOpenDirMakesPrivateParentsAndIsRepeatable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a[1]*", "b")
	for range 2 {
		if err := OpenDir(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{path, filepath.Dir(path)} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v; want 0700", dir, info.Mode(), err)
		}
	}
	stray := filepath.Join(path, ".durable-1")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := OpenDir(path); err != nil {
		t.Fatal(err)
	}
	if names := list(t, path); len(names) != 0 {
		t.Errorf("left behind: %q", names)
	}
}

func TestOpenDirRefuses(t *testing.T) {
	for _, mode := range []fs.FileMode{0o755, 0o750, 0o701, 0o770} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if err := OpenDir(dir); !errors.Is(err, ErrExposed) {
			t.Errorf("mode %v: %v, want ErrExposed", mode, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		if err := OpenDir(path); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: %v, want ENOTDIR", path, err)
		}
	}
}

func TestReadPrivate(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		name string
		mode fs.FileMode
		size int
		want error
	}{
		{"private", 0o600, 8, nil},
		{"read-only", 0o400, 8, nil},
		{"empty", 0o600, 0, nil},
		{"large", 0o600, 9, ErrTooLarge},
		{"world", 0o644, 1, ErrExposed},
		{"group", 0o640, 1, ErrExposed},
		{"writable", 0o602, 1, ErrExposed},
	} {
		path := filepath.Join(dir, f.name)
		if err := WriteFile(path, make([]byte, f.size), f.mode); err != nil {
			t.Fatal(err)
		}
		b, err := ReadPrivate(path, 8)
		if !errors.Is(err, f.want) || err == nil && len(b) != f.size {
			t.Errorf("%s: %d bytes, %v; want %v", f.name, len(b), err, f.want)
		}
	}
	if _, err := ReadPrivate(filepath.Join(dir, "none"), 8); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	for _, name := range []string{"fifo", "."} {
		if _, err := ReadPrivate(filepath.Join(dir, name), 8); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

// copyDir is what a cut leaves of dir: temporary files cut to at most torn bytes, since they may not be synced.
func copyDir(t *testing.T, dir string, torn int64) string {
	t.Helper()
	to := t.TempDir()
	if err := os.Chmod(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range list(t, dir) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, ".durable-") {
			b = b[:min(int64(len(b)), torn)]
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
