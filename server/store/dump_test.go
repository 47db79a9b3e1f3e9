//go:build linux

package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// restored restores a dump into an empty database and opens it.
func restored(t testing.TB, r *rig, node string, dump []byte) *Store {
	t.Helper()
	h, err := Restore(t.Context(), r.options(t, node), bytes.NewReader(dump))
	if err != nil || h.Err() != nil {
		t.Fatal(err, h.Err())
	}
	return r.open(t, node)
}

func backup(t testing.TB, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// withoutRestore is content without what a restore adds, and without presence.
func withoutRestore(t testing.TB, s *Store) []string {
	return slices.DeleteFunc(content(t, s), func(line string) bool {
		return strings.Contains(line, actionRestore) || strings.HasPrefix(line, "presence")
	})
}

// A store moves from SQLite to PostgreSQL and back, and nothing of it changes.
func TestAStoreMoves(t *testing.T) {
	t.Attr("id", "S-move")
	first := &rig{dir: newDir(t)}
	s := first.open(t, "a1")
	furnish(t, s, 50)
	update(t, s, func(tx *Tx) error { return tx.Append(Record{Time: time.Now(), Action: "test"}) })
	want := withoutRestore(t, s)
	pg := newPostgres(t)
	back := &rig{dir: newDir(t)}
	for i, to := range []*rig{pg, back} {
		o := to.options(t, "a1")
		if i == 0 {
			o.Dir = s.dir // as an operator does it: the server's own directory
			to.dirs["a1"] = s.dir
		}
		h, err := Move(t.Context(), s, o)
		if err != nil || h.Err() != nil {
			t.Fatal(err, h.Err())
		}
		if _, err := Move(t.Context(), s, o); !errors.Is(err, ErrExists) && !errors.Is(err, ErrInUse) {
			t.Errorf("into a database that is not empty: %v", err)
		}
		before := s
		end(t, s)
		s = to.open(t, "a1")
		if got := withoutRestore(t, s); !slices.Equal(got, want) {
			t.Errorf("%d rows, want %d", len(got), len(want))
		}
		if s.lastKnown().Store != before.lastKnown().Store || s.lastKnown().Incarnation <= before.lastKnown().Incarnation {
			t.Errorf("%+v after %+v", s.lastKnown(), before.lastKnown())
		}
		healthy(t, s)
		insert(t, s, device(fmt.Sprint("moved ", i)))
		want = withoutRestore(t, s)
	}
	end(t, s)

	// What was left behind is not taken for the store any more.
	old := first.open(t, "a1")
	refuses(t, old, "before the last restore, move or accept")
}

// A store that was moved is not damaged: what is asked of it afterwards says what was done and what to do, and an orderly
// stop, which has a few records left that nobody needs, frightens nobody.
func TestAStoreThatWasMovedIsNotDamaged(t *testing.T) {
	var log bytes.Buffer
	from, to := &rig{dir: newDir(t)}, &rig{dir: newDir(t)}
	o := from.options(t, "a1")
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	s := open(t, o)
	if _, err := s.MoveTo(t.Context(), to.options(t, "a1")); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"write": s.UpdateAlways(t.Context(), func(*Tx) error { return nil }), "grant": s.Health().Granting(), "check": s.Health().Err(),
	} {
		if !errors.Is(err, ErrMoved) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "was moved: start the server anew") {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.Later(func(*Tx) error { return nil })
	end(t, s) // waits for it
	if text := log.String(); strings.Count(text, "dropped") != 1 || strings.Contains(text, "level=WARN") || strings.Contains(text, "level=ERROR") {
		t.Errorf("the log says %s", text)
	}
}

// A backup that is made during many writes is a state that had been: what one transaction wrote is there together.
func TestABackupIsOneMoment(t *testing.T) {
	t.Attr("id", "S-backup")
	onEach(t, func(t *testing.T, r *rig) {
		s := r.open(t, "a1")
		furnish(t, s, 20)
		ctx, cancel := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		count := func(key string, n int) *Measured {
			return &Measured{Key: key, Relays: json.RawMessage(strconv.Itoa(n))}
		}
		for w := range 4 {
			writers.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					err := s.Update(context.Background(), func(tx *Tx) error {
						return errors.Join(tx.Put(count(fmt.Sprint("plus", w), i)), tx.Insert(device(fmt.Sprint(w, " ", i))), tx.Put(count(fmt.Sprint("minus", w), -i)),
							tx.Append(Record{Action: fmt.Sprint("count", w)}))
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		var dumps [][]byte
		for range 5 {
			dumps = append(dumps, backup(t, s))
		}
		cancel()
		writers.Wait()
		for _, dump := range dumps {
			judgeDump(t, dump)
		}
		healthy(t, s)
	})
}

// judgeDump restores a dump, and looks whether what belongs together is there together.
func judgeDump(t *testing.T, dump []byte) {
	t.Helper()
	db, err := Memory()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := restored(t, &rig{db: db}, "a1", dump)
	defer end(t, s)
	healthy(t, s)
	view(t, s, func(tx *Tx) error {
		for w := range 4 {
			read := func(key string) (n int, found bool) {
				m := Measured{Key: key}
				if err := tx.Get(&m); err != nil {
					return 0, false
				}
				n, err := strconv.Atoi(string(m.Relays))
				return n, err == nil
			}
			plus, found := read(fmt.Sprint("plus", w))
			minus, and := read(fmt.Sprint("minus", w))
			if found != and || plus != -minus {
				t.Errorf("writer %d: %d and %d", w, plus, minus)
			}
			records, err := tx.Audit(AuditFilter{Node: "a1", Limit: 1_000_000})
			if err != nil {
				return err
			}
			records = slices.DeleteFunc(records, func(r Record) bool { return r.Action != fmt.Sprint("count", w) })
			_, notYet := tx.DeviceByName("plant", fmt.Sprint(w, " ", plus+1))
			if found && len(records) != plus+1 || !errors.Is(notYet, ErrNotFound) {
				t.Errorf("writer %d: %d records, counted to %d, %v", w, len(records), plus, notYet)
			}
		}
		return nil
	})
}

func TestABackupFileIsPrivateAndWhole(t *testing.T) {
	s := inDir(t, newDir(t))
	furnish(t, s, 5)
	want := withoutRestore(t, s)
	path := filepath.Join(t.TempDir(), "backup")
	for _, passphrase := range []string{"", "correct horse"} {
		if err := WriteFile(path, passphrase, func(w io.Writer) error { return s.Backup(t.Context(), w) }); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("press 1")) != (passphrase == "") {
			t.Error("encrypted or not?")
		}
		for _, wrong := range []string{"", "other", "correct horse"} {
			in, err := Decrypt(bytes.NewReader(b), wrong)
			if wrong != passphrase {
				if err == nil {
					t.Errorf("passphrase %q opens what %q closed", wrong, passphrase)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			r := &rig{dir: newDir(t)}
			if _, err := Restore(t.Context(), r.options(t, "a1"), in); err != nil {
				t.Fatal(err)
			}
			if got := withoutRestore(t, r.open(t, "a1")); !slices.Equal(got, want) {
				t.Errorf("%d rows, want %d", len(got), len(want))
			}
		}
	}
	if err := WriteFile(filepath.Join(path, "nowhere"), "", func(w io.Writer) error { return s.Backup(t.Context(), w) }); err == nil {
		t.Error("no error")
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("left: %v", files)
	}
}

// Whatever is wrong with a dump, nothing of it is in the database afterwards.
func TestADamagedDumpRestoresNothing(t *testing.T) {
	s := inDir(t, newDir(t))
	furnish(t, s, 3)
	whole := backup(t, s)
	dir := newDir(t)
	spoiled := map[string][]byte{
		"empty": nil, "cut": whole[:len(whole)-1], "half": whole[:len(whole)/2], "longer": append(bytes.Clone(whole), 0),
	}
	for i := 0; i < len(whole); i += len(whole)/50 + 1 {
		b := bytes.Clone(whole)
		b[i] ^= 1
		spoiled[fmt.Sprint("flip ", i)] = b
	}
	at := bytes.LastIndex(whole, []byte(`{"name":`)) - 5 // the frame of the last table
	for _, nothing := range []string{"", " ", "\n"} {
		frame := append([]byte{frameTable, 0, 0, 0, byte(len(nothing))}, nothing...)
		spoiled[fmt.Sprintf("ends in a table of %q", nothing)] = slices.Concat(whole[:at], frame)
		spoiled[fmt.Sprintf("a header of %q", nothing)] = slices.Concat([]byte(dumpMagic), []byte{frameHeader}, frame[1:])
	}
	for name, b := range spoiled {
		if _, err := Restore(t.Context(), Options{Dir: dir, Node: "a1"}, bytes.NewReader(b)); err == nil {
			t.Errorf("%s: it is restored", name)
		}
	}
	if h, err := Restore(t.Context(), Options{Dir: dir, Node: "a1"}, bytes.NewReader(whole)); err != nil || h.Err() != nil {
		t.Errorf("the whole one afterwards: %v, %v", err, h.Err())
	}
}

// A damaged store has more need of a backup than others; its damage goes along and is said.
func TestADumpOfADamagedStoreKeepsItsDamage(t *testing.T) {
	onEach(t, func(t *testing.T, r *rig) {
		s := r.open(t, "a1")
		furnish(t, s, 3)
		raw(t, s, "UPDATE devices SET name='other' WHERE name='press 1'", "DELETE FROM user_keys WHERE user_name='admin'")
		to := &rig{dir: newDir(t)}
		h, err := Restore(t.Context(), to.options(t, "a1"), bytes.NewReader(backup(t, s)))
		if err != nil || h.Granting() == nil || !strings.Contains(h.Err().Error(), "its seal does not fit") {
			t.Errorf("%v, %v", err, h.Err())
		}
		again := to.open(t, "a1")
		accepted(t, again, "rows are missing")
	})
}

// The bytes of a dump are those of dump §1, whoever writes them.
func TestDumpVector(t *testing.T) {
	var b bytes.Buffer
	d := newDumpWriter(&b, dumpHeader{Store: "ab", Incarnation: 7, Schema: 1, Node: "a1", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)})
	d.table(dumpTable{"sums", []string{"tbl", "n", "total"}, "tib"})
	d.add([]any{"users", int64(-2), []byte{1, 2}})
	if err := d.end(); err != nil {
		t.Fatal(err)
	}
	frame := func(kind string, payload string) string {
		return fmt.Sprintf("%x%08x%x", kind, len(payload), payload)
	}
	want := hex.EncodeToString([]byte("hawser dump v1\n\x00")) +
		frame("H", `{"store":"ab","incarnation":7,"schema":1,"node":"a1","time":"2026-01-02T03:04:05Z"}`) +
		frame("T", `{"name":"sums","columns":["tbl","n","total"],"kinds":"tib"}`) +
		frame("R", "\x00\x00\x00\x05users\xff\xff\xff\xff\xff\xff\xff\xfe\x00\x00\x00\x02\x01\x02") +
		fmt.Sprintf("%x%08x%016x", "E", 40, 1)
	before, err := hex.DecodeString(want)
	if err != nil {
		t.Fatal(err)
	}
	want += fmt.Sprintf("%x", sha256.Sum256(before))
	if got := hex.EncodeToString(b.Bytes()); got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}

func FuzzDump(f *testing.F) {
	db, err := Memory()
	if err != nil {
		f.Fatal(err)
	}
	defer db.Close()
	s := open(f, Options{Database: db, Node: "a1"})
	defer s.Close()
	furnish(f, s, 1)
	f.Add(backup(f, s))
	var b bytes.Buffer
	d := newDumpWriter(&b, dumpHeader{Store: "ab", Schema: 1})
	d.table(dumpTable{"sums", []string{"tbl", "n", "total"}, "tib"})
	d.add([]any{"users", int64(-2), []byte{1, 2}})
	d.end()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		first, copied, err := recode(b)
		if err != nil {
			return
		}
		second, _, err := recode(copied)
		if err != nil || first != second {
			t.Errorf("%v: %s, and before it was %s", err, second, first)
		}
	})
}

// recode reads a dump and writes it again.
func recode(b []byte) (text string, copied []byte, err error) {
	r, err := newDumpReader(bytes.NewReader(b))
	if err != nil {
		return "", nil, err
	}
	var out bytes.Buffer
	w := newDumpWriter(&out, r.header)
	text = fmt.Sprint(r.header)
	var of *dumpTable
	for {
		values, err := r.next()
		if r.table != of {
			of = r.table
			w.table(*of)
			text += fmt.Sprintf("\n%+v", *of)
		}
		if errors.Is(err, io.EOF) {
			err := w.end()
			return text, out.Bytes(), err
		}
		if err != nil {
			return "", nil, err
		}
		w.add(values)
		text += fmt.Sprintf("\n%q", values)
	}
}
