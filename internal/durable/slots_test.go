//go:build unix

package durable

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestSlotsStartEmptyAndKeepTheNewest(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if b, err := s.Load(); b != nil || err != nil {
		t.Fatalf("empty: %q, %v; want nil, nil", b, err)
	}
	for i := range 5 {
		want := []byte{byte(i)}
		if err := s.Save(want); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*Slots{s, open(t, dir)} {
			if got, err := s.Load(); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("load %q, %v; want %q", got, err, want)
			}
			if s.sequence != uint64(i+1) {
				t.Errorf("sequence %d, want %d", s.sequence, i+1)
			}
		}
	}
	if err := s.Save(nil); err != nil {
		t.Fatal(err)
	}
	if b, err := s.Load(); b == nil || len(b) != 0 || err != nil {
		t.Errorf("saved nothing: %v, %v; want an empty value that is not nil", b, err)
	}
}

func TestSlotsLimitThePayload(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Save(make([]byte, MaxPayload)); err != nil {
		t.Error(err)
	}
	if err := s.Save(make([]byte, MaxPayload+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too much: %v, want ErrTooLarge", err)
	}
	if b, err := s.Load(); len(b) != MaxPayload || err != nil {
		t.Errorf("after the refusal: %d bytes, %v", len(b), err)
	}
}

// Every flipped bit and every truncation of one slot falls back to the other, and the next Save repairs it.
func TestDamagedSlotFallsToTheOther(t *testing.T) {
	older, newer := []byte("first value"), []byte("second value")
	for slot, other := range [][]byte{newer, older} { // slot 0 holds older, slot 1 newer
		dir := t.TempDir()
		s := open(t, dir)
		save(t, s, older)
		save(t, s, newer)
		path := s.paths[slot]
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for name, bad := range damages(whole) {
			write(t, path, bad)
			if got, err := open(t, dir).Load(); err != nil || !bytes.Equal(got, other) {
				t.Errorf("slot %d %s: %q, %v; want %q", slot, name, got, err, other)
			}
		}
		repaired := open(t, dir)
		save(t, repaired, []byte("third"))
		if got, err := repaired.Load(); err != nil || string(got) != "third" {
			t.Errorf("slot %d repaired: %q, %v", slot, got, err)
		}
	}
}

func TestAllSlotsDamagedIsToldAndSaveStartsAnew(t *testing.T) {
	for name, files := range map[string][2][]byte{
		"both":              {[]byte("x"), []byte("y")},
		"one, other absent": {encodeSlot(3, []byte("v"))[:40], nil},
		"sequence 0":        {encodeSlot(0, []byte("v")), nil},
		"last sequence":     {encodeSlot(1<<64-1, []byte("v")), nil},
		"too large a file":  {make([]byte, slotMax+1), nil},
	} {
		dir := t.TempDir()
		for i, b := range files {
			if b != nil {
				write(t, filepath.Join(dir, []string{"state.0", "state.1"}[i]), b)
			}
		}
		s := open(t, dir)
		if b, err := s.Load(); b != nil || !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %q, %v; want ErrDamaged", name, b, err)
		}
		save(t, s, []byte("anew"))
		if b, err := open(t, dir).Load(); err != nil || string(b) != "anew" {
			t.Errorf("%s: after Save %q, %v", name, b, err)
		}
	}
}

func TestSlotsRefuseWhatOthersCanRead(t *testing.T) {
	dir := t.TempDir()
	save(t, open(t, dir), []byte("v"))
	if err := os.Chmod(filepath.Join(dir, "state.0"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSlots(dir, "state"); !errors.Is(err, ErrExposed) {
		t.Errorf("%v, want ErrExposed", err)
	}
}

func TestFailedSaveKeepsTheValueAndTheSequence(t *testing.T) {
	s := open(t, t.TempDir())
	save(t, s, []byte("kept"))
	full := errors.New("no space left")
	s.write = func(string, []byte, fs.FileMode) error { return full }
	if err := s.Save([]byte("lost")); !errors.Is(err, full) {
		t.Fatalf("%v, want the cause", err)
	}
	if b, err := s.Load(); err != nil || string(b) != "kept" || s.sequence != 1 {
		t.Errorf("%q, %v, sequence %d", b, err, s.sequence)
	}
}

// A cut at each step of a Save, on either slot, leaves the old value or the new one.
func TestCutDuringSaveLeavesOldOrNew(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	values, cuts := []string{"one", "two", "three"}, 0
	save(t, s, []byte(values[0]))
	for i, next := range values[1:] {
		s.write = writer{after: func(step string) {
			cuts++
			survivor := copyDir(t, dir, 30)
			if err := OpenDir(survivor); err != nil {
				t.Fatal(err)
			}
			got, err := open(t, survivor).Load()
			if err != nil || string(got) != values[i] && string(got) != next {
				t.Errorf("after %s: %q, %v", step, got, err)
			}
		}}.writeFile
		save(t, s, []byte(next))
	}
	if cuts != 14 {
		t.Errorf("%d cuts, want 14", cuts)
	}
}

// The bytes of a slot are fixed: an agent must read what an older one wrote.
func TestSlotVector(t *testing.T) {
	const want = "484157534c4f54310000000000000007000000026869" +
		"77997bf05c6d096da579d17403210564ba094bdbbdb8ddf96c06049603a9a45c"
	got := hex.EncodeToString(encodeSlot(7, []byte("hi")))
	if got != want {
		t.Errorf("slot %s, want %s", got, want)
	}
	sequence, payload, err := parseSlot(encodeSlot(7, []byte("hi")))
	if sequence != 7 || string(payload) != "hi" || err != nil {
		t.Errorf("parsed %d, %q, %v", sequence, payload, err)
	}
}

func FuzzSlot(f *testing.F) {
	f.Add([]byte{})
	f.Add(encodeSlot(1, nil))
	f.Add(encodeSlot(1<<40, []byte("payload")))
	f.Fuzz(func(t *testing.T, b []byte) {
		sequence, payload, err := parseSlot(b)
		if err == nil && !bytes.Equal(encodeSlot(sequence, payload), b) {
			t.Errorf("%x parses, but encodes differently", b)
		}
	})
}

// damages yields whole with each bit flipped, cut at each length, and with a byte too many.
func damages(whole []byte) map[string][]byte {
	bad := map[string][]byte{"longer": append(bytes.Clone(whole), 0)}
	for i := range whole {
		bad["cut at "+hex.EncodeToString([]byte{byte(i)})] = whole[:i]
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			bad["bit "+hex.EncodeToString([]byte{byte(i), byte(bit)})] = b
		}
	}
	return bad
}

func open(t *testing.T, dir string) *Slots {
	t.Helper()
	s, err := OpenSlots(dir, "state")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func save(t *testing.T, s *Slots, b []byte) {
	t.Helper()
	if err := s.Save(b); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
