package store

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/soak"
)

// furnish fills a store with rows in every table. Pages of SQLite have to be full of them, or most flips hit nothing.
func furnish(t testing.TB, s *Store, n int) {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Microsecond)
	spki := func(i int) (x identity.SPKI) { copy(x[:], fmt.Sprintf("spki %027d", i)); return x }
	insert(t, s, &Domain{Name: "plant", Created: now, Infrastructure: true}, &User{Domain: "plant", Name: "admin", Created: now},
		&Node{Name: "a1", CA: spki(1), Hosts: []string{"a.example"}})
	for i := range n {
		d := device(fmt.Sprintf("press %d", i))
		d.SPKI, d.Enrolled, d.NotAfter, d.Chain = spki(i), now, now.Add(time.Hour), strings.Repeat("chain ", 100)
		uid, err := identity.ParseUID(d.ID)
		if err != nil {
			t.Fatal(err)
		}
		insert(t, s, d, &UserKey{Domain: "plant", User: "admin", SPKI: spki(i), Login: now, NotAfter: now},
			&Member{Kind: identity.KindRelay, ID: fmt.Sprintf("r%d", i), Name: "r", Created: now},
			&Code{Lookup: fmt.Sprint(i), Kind: identity.KindDevice, Domain: "plant", Subject: d.ID, Expires: now},
			&Statement{Domain: "plant", ID: Hash{byte(i), byte(i >> 8)}, Typ: "hawser-device", Subject: DeviceSubject(uid), Serial: 1, JWS: "a.b.c", At: now},
			&RevokedKey{SPKI: spki(1000 + i), Name: "x", When: now},
			&Session{ID: fmt.Sprint("s", i), Epoch: 1, Domain: "plant", Device: uid, User: "admin", Relay: "r1", Created: now},
			&Measured{Key: "user." + fmt.Sprint(i), At: now, Relays: []byte(`[{"rtt_us":1}]`)},
			&Decision{Device: uid, User: "admin", At: now, Choice: []byte(`{"chosen":"r1"}`)})
	}
}

// content is all that a store says, one line a row. What cannot be read is not there.
func content(t testing.TB, s *Store) (lines []string) {
	t.Helper()
	for _, tab := range schema.all() {
		err := s.View(t.Context(), func(tx *Tx) error {
			return tx.scanTable(tab, tab.sql.selectAll, nil, func(_ Row, s scanned, damage error) error {
				if damage == nil {
					lines = append(lines, fmt.Sprint(tab.name, s.values))
				}
				return nil
			})
		})
		if err != nil {
			lines = append(lines, tab.name+" cannot be read")
		}
	}
	slices.Sort(lines)
	return lines
}

// A spoiler does to a file what a bad disk may do.
type spoiler struct {
	name  string
	spoil func(b []byte, r *rand.Rand) []byte
}

func spoilers() []spoiler {
	return []spoiler{
		{"flip", func(b []byte, r *rand.Rand) []byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return b }},
		{"flip", func(b []byte, r *rand.Rand) []byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return b }},
		{"flip", func(b []byte, r *rand.Rand) []byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return b }},
		{"truncate", func(b []byte, r *rand.Rand) []byte { return b[:r.IntN(len(b))] }},
		{"torn", func(b []byte, r *rand.Rand) []byte {
			at := r.IntN(len(b)) &^ 511
			clear(b[at:min(at+512, len(b))])
			return b
		}},
	}
}

// newRand is random in another way each time; SEED=n asks for one way again.
func newRand(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// Whatever becomes of the files, of a store that ended in order or was killed: what is missing afterwards is said, by
// table, and nothing is granted while a revocation may be among it.
func TestNoDamageIsSilent(t *testing.T) {
	t.Attr("id", "S-flip")
	dir := newDir(t)
	s := open(t, Options{Dir: dir, Node: "a1"})
	furnish(t, s, 30)
	killed := newDir(t)
	copyDir(t, dir, killed)
	want := content(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r := newRand(t)
	noticed, harmless := 0, 0
	for i := range soak.Or(300, 10_000) {
		from := []string{dir, killed}[i%2]
		spoiled := filepath.Join(t.TempDir(), "store")
		copyDir(t, from, spoiled)
		what := spoilOne(t, spoiled, r)
		if judgeSpoiled(t, spoiled, what, want) {
			noticed++
		} else {
			harmless++
		}
		os.RemoveAll(spoiled)
	}
	t.Logf("%d noticed, %d without any loss", noticed, harmless)
	if noticed == 0 {
		t.Error("nothing was ever noticed: this test cannot fail")
	}
}

// spoilOne damages one file, the large ones more often, and says how.
func spoilOne(t testing.TB, dir string, r *rand.Rand) string {
	t.Helper()
	names := []string{databaseFile, databaseFile, databaseFile, databaseFile + "-wal", databaseFile + "-wal", "progress.a1.0", "progress.a1.1"}
	var file string
	var b []byte
	for len(b) == 0 {
		file = filepath.Join(dir, names[r.IntN(len(names))])
		b, _ = os.ReadFile(file) // after an orderly end there is no log
	}
	all := spoilers()
	how := all[r.IntN(len(all))]
	if err := os.WriteFile(file, how.spoil(b, r), 0o600); err != nil {
		t.Fatal(err)
	}
	return how.name + " " + filepath.Base(file)
}

// judgeSpoiled opens a spoiled store, and reports whether it noticed.
func judgeSpoiled(t testing.TB, dir, what string, want []string) bool {
	t.Helper()
	s, err := Open(t.Context(), Options{Dir: dir, Node: "a1"})
	if err != nil {
		return true
	}
	defer s.Close()
	health, got := s.Health(), content(t, s)
	var lost []string
	for _, line := range want {
		if _, found := slices.BinarySearch(got, line); !found {
			lost = append(lost, line)
		}
	}
	if len(lost) > 0 || len(got) != len(want) {
		if health.Err() == nil {
			t.Errorf("%s: %d rows lost, %d there, and nothing is said: %.200q", what, len(lost), len(got), lost)
		}
		if granting := health.Granting(); granting == nil && slices.ContainsFunc(lost, func(l string) bool { return strings.HasPrefix(l, "revoked") }) {
			t.Errorf("%s: a revocation is lost, and grants go on", what)
		}
	}
	if err := health.Err(); err != nil && !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
	return health.Err() != nil
}

// A bad row that is written anew is good again, at once.
func TestABadRowIsMendedByWritingIt(t *testing.T) {
	dir := newDir(t)
	s := open(t, Options{Dir: dir, Node: "a1"})
	d := device("press 1")
	insert(t, s, d)
	s.Close()
	db, err := sql.Open("sqlite", filepath.Join(dir, databaseFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE devices SET name='press 2'"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	s = inDir(t, dir)
	if err := s.Health().Err(); err == nil || s.Health().Granting() != nil {
		t.Fatalf("%v, %v", err, s.Health().Granting())
	}
	if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Put(d) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Health().Err(); err != nil {
		t.Error(err)
	}
}
