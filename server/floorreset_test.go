package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/server/access"
)

// resetOptions are good ones for an infrastructure that was just made.
func resetOptions(t *testing.T) (ResetOptions, identity.UID) {
	o := options(t)
	_, err := Init(t.Context(), o)
	must(t, err)
	uid := identity.NewUID()
	return ResetOptions{Dir: o.Dir, UID: uid.String(), To: "2026-01-12T10:00:00+01:00"}, uid
}

// stored reads what the Access Server of o would send.
func stored(t *testing.T, o ResetOptions, uid identity.UID) identity.FloorReset {
	t.Helper()
	roots, err := loadRoots(filepath.Join(o.Dir, rootFile))
	must(t, err)
	_, r, err := access.ReadFloorReset(filepath.Join(o.Dir, accessDir, resetsDir), uid, roots)
	must(t, err)
	return r
}

func TestAFloorResetIsSignedAndLaidReady(t *testing.T) {
	o, uid := resetOptions(t)
	begin := time.Now()
	made, err := SignFloorReset(o)
	must(t, err)
	want := time.Date(2026, 1, 12, 9, 0, 0, 0, time.UTC)
	if got := stored(t, o, uid); got != made.FloorReset || !got.To.Equal(want) || got.UID != uid || got.Sequence < uint64(begin.UnixMilli()) {
		t.Errorf("stored %+v, told %+v", got, made)
	}
	if runtime.GOOS == "windows" {
		return
	}
	info, err := os.Stat(made.File)
	must(t, err)
	if info.Mode().Perm() != 0o644 {
		t.Errorf("mode %04o: the server's user could not read it", info.Mode().Perm())
	}
}

func TestASequenceGrowsWhateverTheClockSays(t *testing.T) {
	o, uid := resetOptions(t)
	now := time.Now()
	var last uint64
	for i, at := range []time.Time{now.Add(time.Hour), now, now, now.Add(2 * time.Hour), now.Add(-time.Hour)} {
		o.Now = func() time.Time { return at }
		made, err := SignFloorReset(o)
		must(t, err)
		if made.Sequence <= last {
			t.Errorf("reset %d: sequence %d after %d", i, made.Sequence, last)
		}
		last = made.Sequence
	}
	// A file that is damaged, or lost with the disk, leaves the time.
	must(t, os.WriteFile(filepath.Join(o.Dir, accessDir, resetsDir, uid.String()), []byte("garbage"), 0o644))
	o.Now = func() time.Time { return now.Add(3 * time.Hour) }
	if made, err := SignFloorReset(o); err != nil || made.Sequence <= last {
		t.Errorf("after a restore: sequence %d after %d, %v", made.Sequence, last, err)
	}
}

func TestFloorResetsThatMakeNoSenseAreRefused(t *testing.T) {
	o, _ := resetOptions(t)
	relay := filepath.Join(t.TempDir(), "relay")
	must(t, os.Mkdir(relay, 0o700))
	must(t, os.WriteFile(filepath.Join(relay, configFile), []byte("hosts: [r]\nports: [443]\nroot: root.pem\nrelay: {name: r, dir: r, access: [a]}\n"), 0o600))
	cases := map[string]struct {
		change func(*ResetOptions)
		want   string
	}{
		"no UID":              {func(o *ResetOptions) { o.UID = "" }, "uid: "},
		"short UID":           {func(o *ResetOptions) { o.UID = o.UID[1:] }, "uid: "},
		"path as UID":         {func(o *ResetOptions) { o.UID = "../../../../../../etc/x/passwd/aa" }, "uid: "},
		"zero UID":            {func(o *ResetOptions) { o.UID = strings.Repeat("0", 32) }, "uid: "},
		"no time":             {func(o *ResetOptions) { o.To = "" }, "neither a date nor a time like"},
		"words":               {func(o *ResetOptions) { o.To = "yesterday" }, "neither a date nor a time like"},
		"no zone":             {func(o *ResetOptions) { o.To = "2026-01-12T10:00:00" }, "neither a date nor a time like"},
		"two days ahead":      {func(o *ResetOptions) { o.To = time.Now().Add(48 * time.Hour).Format(time.RFC3339) }, "is in the future"},
		"before 1970":         {func(o *ResetOptions) { o.To = "1969-12-31" }, "before 1970"},
		"no such directory":   {func(o *ResetOptions) { o.Dir += "x" }, "read config"},
		"a relay's directory": {func(o *ResetOptions) { o.Dir = relay }, "no Access Server"},
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(cases)))
	for name, c := range cases {
		bad := o
		c.change(&bad)
		_, err := SignFloorReset(bad)
		if _, config := errors.AsType[*ConfigError](err); !config || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a ConfigError with %q", name, err, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(o.Dir, accessDir, resetsDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was made: %v", err)
	}
	o.To = time.Now().Add(20 * time.Hour).Format(time.DateOnly) // tomorrow, for somebody
	_, err := SignFloorReset(o)
	must(t, err)
}

func TestOnlyTheRootOfTheInfrastructureSignsFloorResets(t *testing.T) {
	o, uid := resetOptions(t)
	away := filepath.Join(t.TempDir(), "stick")
	must(t, os.Rename(filepath.Join(o.Dir, rootDir), away))
	_, err := SignFloorReset(o)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "--root-dir") || !strings.Contains(err.Error(), filepath.Join(o.Dir, rootDir)) {
		t.Errorf("without the root: %v", err)
	}
	o.RootDir = filepath.Join(away, "none")
	if _, err := SignFloorReset(o); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "--root-dir") {
		t.Errorf("at a wrong place: %v", err)
	}
	foreign, _ := resetOptions(t)
	o.RootDir = filepath.Join(foreign.Dir, rootDir)
	if _, err := SignFloorReset(o); identity.FaultOf(err) != identity.FaultBadSignature || !strings.Contains(err.Error(), "another root") {
		t.Errorf("with another root: %v", err)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, accessDir, resetsDir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was made: %v", err)
	}
	o.RootDir = away
	_, err = SignFloorReset(o)
	must(t, err)
	stored(t, o, uid)
}
