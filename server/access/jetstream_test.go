package access

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestJetStreamKeepsWhatItAcknowledged(t *testing.T) {
	dir := storeDir(t)
	s := openJetStream(t, dir)
	revision, err := s.Create(t.Context(), bucketDevices, "d1", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := s.Append(t.Context(), "a1", "plant", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := openJetStream(t, dir)
	e, err := again.Get(t.Context(), bucketDevices, "d1")
	if err != nil || string(e.Value) != "one" || e.Revision != revision {
		t.Errorf("%q at %d, %v", e.Value, e.Revision, err)
	}
	records, err := again.Records(t.Context(), "", "", 20)
	if err != nil || len(records) != 10 || string(records[9]) != "9" {
		t.Errorf("%q, %v", records, err)
	}
}

// A copy of the directory while the store runs is what a kill would leave:
// nothing waits in memory for an orderly end.
func TestJetStreamNeedsNoOrderlyEnd(t *testing.T) {
	dir, copied := storeDir(t), t.TempDir()
	s := openJetStream(t, dir)
	if _, err := s.Create(t.Context(), bucketDevices, "d1", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(copied, "c"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(copied, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	again := openJetStream(t, filepath.Join(copied, "c"))
	if e, err := again.Get(t.Context(), bucketDevices, "d1"); err != nil || string(e.Value) != "one" {
		t.Errorf("%q, %v", e.Value, err)
	}
}

func TestJetStreamSaysThatItSyncs(t *testing.T) {
	text, err := openJetStream(t, storeDir(t)).Check(t.Context())
	if err != nil || !strings.Contains(text, "syncs before it acknowledges") {
		t.Errorf("%q, %v", text, err)
	}
}

func TestJetStreamListensNowhereAndEndsItsGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	s, err := OpenJetStream(storeDir(t))
	if err != nil {
		t.Fatal(err)
	}
	if addr := s.(*jetStream).server.Addr(); addr != (net.Addr)(nil) {
		t.Errorf("listens on %v", addr)
	}
	s.Close()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if after := runtime.NumGoroutine(); after > before {
		stacks := make([]byte, 1<<16)
		t.Errorf("%d goroutines before, %d after:\n%s", before, after, stacks[:runtime.Stack(stacks, true)])
	}
}

func TestJetStreamRefusesADirectoryThatIsNotItsOwn(t *testing.T) {
	dir := storeDir(t)
	openJetStream(t, dir)
	if s, err := OpenJetStream(dir); !errors.Is(err, ErrInUse) {
		t.Errorf("opened a store twice: %v, %v", s, err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := OpenJetStream(filepath.Join(file, "store")); err == nil {
		s.Close()
		t.Error("opened a store below a file")
	} else if errors.Is(err, ErrInUse) {
		t.Errorf("below a file: %v", err)
	}
}

func TestAllBucketsAreDifferent(t *testing.T) {
	buckets := allBuckets()
	slices.Sort(buckets)
	if len(slices.Compact(buckets)) != 12 {
		t.Errorf("%v", buckets)
	}
}
