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

func TestOwners(t *testing.T) {
	for _, tt := range []struct {
		owner, self uint32
		want        bool
	}{
		{0, 0, true}, {0, 998, true}, {0, 1000, true}, // what root owns, everybody may use
		{998, 998, true}, {1000, 1000, true},
		{998, 0, true}, {999, 0, true}, // root looks after a service
		{1000, 0, false}, {65534, 0, false}, // a person, and nobody
		{998, 1000, false}, {1000, 998, false}, {1000, 1001, false},
	} {
		if got := mayOwn(tt.owner, tt.self); got != tt.want {
			t.Errorf("file of %d, read by %d: %v", tt.owner, tt.self, got)
		}
	}
}

func TestWhatOthersMayWriteIsNotTrusted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.yaml")
	for mode, want := range map[fs.FileMode]error{
		0o600: nil, 0o640: nil, 0o644: nil, 0o400: nil, 0o664: ErrExposed, 0o646: ErrExposed, 0o666: ErrExposed, 0o620: ErrExposed,
	} {
		if err := errors.Join(os.WriteFile(path, []byte("x"), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTrusted(path, 10); !errors.Is(err, want) {
			t.Errorf("mode %04o: %v, want %v", mode, err, want)
		}
		if b, err := ReadPublic(path, 10); err != nil || string(b) != "x" {
			t.Errorf("mode %04o, public: %q, %v", mode, b, err)
		}
	}
}

// A command beside the service opens its directory, and writes the same file, at any moment of a write: it waits for the
// rename, and then its bytes are there.
func TestASecondWriterWaitsForTheFirst(t *testing.T) {
	for _, step := range []string{"create", "chmod", "write", "sync file", "rename"} {
		dir := filepath.Join(t.TempDir(), "state")
		if err := OpenDir(dir); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "device.key")
		var second sync.WaitGroup
		w := writer{after: func(at string) {
			if at != step {
				return
			}
			if err := OpenDir(dir); err != nil {
				t.Error(err)
			}
			if err := (writer{}).writeFile(path, nil, 0o600); step != "rename" && !errors.Is(err, errBusy) {
				t.Errorf("second writer without patience, after %s: %v", step, err)
			}
			second.Go(func() {
				if err := WriteFile(path, []byte("second"), 0o600); err != nil {
					t.Error(err)
				}
			})
		}}
		if err := w.writeFile(path, []byte("first"), 0o600); err != nil {
			t.Errorf("after %s: %v", step, err)
		}
		second.Wait()
		if got, err := os.ReadFile(path); err != nil || string(got) != "second" {
			t.Errorf("after %s: read %q, %v", step, got, err)
		}
		if names := list(t, dir); len(names) != 1 {
			t.Errorf("after %s: directory holds %q", step, names)
		}
	}
}

// Each open file has a lock of its own, so goroutines stand here for processes.
func TestManyWritersLeaveOneWholeFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	whole := func(b []byte) bool {
		return len(b) > 0 && len(b) == 1000*int(b[0]) && len(bytes.Trim(b, string(b[0]))) == 0
	}
	var writers, reader sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		writers.Go(func() {
			for range 50 {
				if err := WriteFile(path, bytes.Repeat([]byte{byte(i + 1)}, 1000*(i+1)), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	reader.Go(func() {
		for {
			if b, err := os.ReadFile(path); err == nil && !whole(b) || err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	writers.Wait()
	close(done)
	reader.Wait()
	if names := list(t, dir); !slices.Equal(names, []string{"f"}) {
		t.Errorf("directory holds %q", names)
	}
}

// What a cut, or a stranger in a directory such as /tmp, left under the name of the temporary file is not written into.
func TestWriteFileReplacesWhatIsLeftOfAnother(t *testing.T) {
	for name, leave := range map[string]func(temp, elsewhere string) error{
		"a torn file":    func(temp, _ string) error { return os.WriteFile(temp, []byte("to"), 0o666) },
		"a second name":  func(temp, elsewhere string) error { return os.Link(elsewhere, temp) },
		"a file to read": func(temp, _ string) error { return os.WriteFile(temp, nil, 0o444) },
	} {
		dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "elsewhere")
		if err := errors.Join(os.WriteFile(elsewhere, []byte("kept"), 0o600), leave(filepath.Join(dir, ".f.durable"), elsewhere)); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(filepath.Join(dir, "f"), []byte("new"), 0o600); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := ReadPrivate(filepath.Join(dir, "f"), 10); err != nil || string(got) != "new" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if got, err := os.ReadFile(elsewhere); err != nil || string(got) != "kept" {
			t.Errorf("%s: elsewhere %q, %v", name, got, err)
		}
		if names := list(t, dir); len(names) != 1 {
			t.Errorf("%s: left behind: %q", name, names)
		}
	}
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Symlink(elsewhere, filepath.Join(dir, ".f.durable")); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "f"), []byte("new"), 0o600); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a link: %v, want ELOOP", err)
	}
	if _, err := os.Lstat(elsewhere); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link was followed: %v", err)
	}
}

// The directory is open from before the rename until after its sync, so that an error of the kernel's own writing in
// between is told to that sync.
func TestTheDirectoryIsOpenDuringTheRename(t *testing.T) {
	const open = "/proc/self/fd"
	if _, err := os.Stat(open); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	held := map[string]bool{}
	w := writer{after: func(step string) {
		for _, name := range list(t, open) {
			if to, err := os.Readlink(filepath.Join(open, name)); err == nil && to == dir {
				held[step] = true
			}
		}
	}}
	if err := w.writeFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !held["sync file"] || !held["rename"] || held["sync directory"] {
		t.Errorf("open after %v", held)
	}
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
			if err := WriteFile(filepath.Join(survivor, "f"), after, 0o600); err != nil {
				t.Errorf("written again, after %s: %v", step, err)
			}
			if names := list(t, survivor); len(names) != 1 {
				t.Errorf("after %s: left behind: %q", step, names)
			}
		}
	}
	if err := (writer{after: cut}).writeFile(filepath.Join(dir, "f"), after, 0o600); err != nil {
		t.Fatal(err)
	}
	if want := []string{"open directory", "create", "chmod", "write", "sync file", "rename", "sync directory"}; !slices.Equal(steps, want) {
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
		if strings.HasSuffix(name, ".durable") {
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
