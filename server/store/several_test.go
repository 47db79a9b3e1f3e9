//go:build linux

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func note(s *Store, i int) error {
	return s.Update(context.Background(), func(tx *Tx) error { tx.Note("n", s.Node()+" "+strconv.Itoa(i)); return nil })
}

func next(t testing.TB, f *Follower) (subjects []string, missed bool) {
	t.Helper()
	changes, missed, err := f.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		subjects = append(subjects, c.Subject)
	}
	return subjects, missed
}

func TestAFollowerLearnsEverythingInOrder(t *testing.T) {
	onShared(t, func(t *testing.T, r *rig) {
		a, b, c := r.open(t, "a1"), r.open(t, "a2"), r.open(t, "a3")
		f := c.Follow()
		if got, missed := next(t, f); !missed || len(got) > 0 {
			t.Errorf("first: %q, %v", got, missed)
		}
		const n = 50
		var writers sync.WaitGroup
		for _, s := range []*Store{a, b, c} {
			for range 3 { // many at once share a commit
				writers.Go(func() {
					for i := range n {
						if err := note(s, i); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		done := make(chan bool)
		defer writers.Wait()
		go func() { writers.Wait(); close(done) }()
		count := make(map[string]int)
		for ended := false; !ended; {
			select {
			case <-done:
				ended = true
			default:
			}
			got, missed := next(t, f)
			if missed {
				t.Error("it says that it missed something")
			}
			for _, subject := range got {
				count[subject]++
			}
		}
		if len(count) != 2*n {
			t.Errorf("%d of %d changes", len(count), 2*n)
		}
		for subject, times := range count {
			if times != 3 || strings.HasPrefix(subject, "a3") {
				t.Errorf("%s: %d times", subject, times)
			}
		}
		fresh := r.open(t, "a4") // a node that joins
		if err := note(fresh, 1); err != nil {
			t.Error(err)
		}
		if got, missed := next(t, f); !slices.Equal(got, []string{"a4 1"}) || missed {
			t.Errorf("of a node that joined: %q, %v", got, missed)
		}
	})
}

// PostgreSQL commits in another order than transactions began: numbers of one sequence would be skipped.
func TestAFollowerSkipsNothingThatCommitsLate(t *testing.T) {
	r := newPostgres(t)
	early, late, c := r.open(t, "a1"), r.open(t, "a2"), r.open(t, "a3")
	f := c.Follow()
	next(t, f)
	written, hold, done := make(chan bool), make(chan bool), make(chan error)
	first := true
	go func() {
		done <- late.Update(context.Background(), func(tx *Tx) error {
			tx.Note("n", "late")
			if first {
				first = false
				written <- true
				<-hold
			}
			return nil
		})
	}()
	<-written
	if err := note(early, 1); err != nil {
		t.Fatal(err)
	}
	if got, _ := next(t, f); !slices.Equal(got, []string{"a1 1"}) {
		t.Errorf("%q", got)
	}
	close(hold)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, _ := next(t, f); !slices.Equal(got, []string{"late"}) {
		t.Errorf("%q", got)
	}
}

// What two nodes do to one row at once happens one after the other, and the sums are right afterwards.
func TestNodesThatMeetDoNotLoseAnything(t *testing.T) {
	onShared(t, func(t *testing.T, r *rig) {
		nodes := []*Store{r.open(t, "a1"), r.open(t, "a2")}
		const n = 40
		var writers sync.WaitGroup
		for _, s := range nodes {
			for w := range 2 {
				writers.Go(func() {
					for i := range n {
						err := s.Update(context.Background(), func(tx *Tx) error {
							m := Measured{Key: "count"}
							if err := tx.Get(&m); err != nil && !errors.Is(err, ErrNotFound) {
								return err
							}
							var count int
							if len(m.Relays) > 0 {
								if err := json.Unmarshal(m.Relays, &count); err != nil {
									return err
								}
							}
							m.Relays = json.RawMessage(strconv.Itoa(count + 1))
							return errors.Join(tx.Put(&m), tx.Insert(device(fmt.Sprint(s.Node(), w, i))), tx.Append(Record{Action: "test"}))
						})
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		writers.Wait()
		m := Measured{Key: "count"}
		view(t, nodes[0], func(tx *Tx) error { return tx.Get(&m) })
		if want := strconv.Itoa(4 * n); string(m.Relays) != want {
			t.Errorf("counted %s, want %s", m.Relays, want)
		}
		for _, s := range nodes {
			healthy(t, s)
		}
	})
}

func TestTwoNodesMakeTheTablesAtOnce(t *testing.T) {
	for range 5 {
		r := newPostgres(t)
		opened := make(chan *Store)
		for _, node := range []string{"a1", "a2", "a3"} {
			o := r.options(t, node)
			go func() {
				s, err := Open(context.Background(), o)
				if err != nil {
					t.Error(err)
				}
				opened <- s
			}()
		}
		ids := make(map[string]bool)
		for range 3 {
			if s := <-opened; s != nil {
				ids[s.lastKnown().Store] = true
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		if len(ids) != 1 {
			t.Errorf("ids %v", ids)
		}
	}
}

// A process whose lease another one has taken writes nothing any more, even if it does not know it.
func TestOnlyWhoHoldsTheLeaseWrites(t *testing.T) {
	onShared(t, func(t *testing.T, r *rig) {
		o := r.options(t, "a1")
		o.Shared = true
		second := o
		if r.url != "" {
			second.Dir = newDir(t)
		}
		old := open(t, o)
		defer old.Close()
		if err := note(old, 1); !errors.Is(err, ErrAway) {
			t.Errorf("before its lease: %v", err)
		}
		if err := old.RenewLease(t.Context()); !errors.Is(err, ErrNotFound) {
			t.Errorf("renewed what it never had: %v", err)
		}
		if err := old.TakeLease(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(note(old, 2), old.RenewLease(t.Context())); err != nil {
			t.Fatal(err)
		}
		young := open(t, second)
		defer young.Close()
		if err := young.TakeLease(t.Context()); !errors.Is(err, ErrInUse) {
			t.Errorf("took a lease that holds: %v", err)
		}
		if err := note(young, 3); !errors.Is(err, ErrAway) {
			t.Errorf("without a lease: %v", err)
		}
		expire(t, old)
		if err := old.RenewLease(t.Context()); !errors.Is(err, ErrNotFound) {
			t.Errorf("renewed one that ran out: %v", err)
		}
		if err := young.TakeLease(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := note(old, 4); !errors.Is(err, ErrAway) {
			t.Errorf("fenced: %v", err)
		}
		if err := old.DropLease(t.Context()); err != nil {
			t.Error(err)
		}
		if err := note(young, 5); err != nil {
			t.Error(err)
		}
		var held map[string]string
		view(t, young, func(tx *Tx) (err error) { held, err = tx.Leases(); return err })
		if held["a1"] != young.Run() {
			t.Errorf("%v", held)
		}
		if err := young.DropLease(t.Context()); err != nil {
			t.Error(err)
		}
		if err := old.TakeLease(t.Context()); err != nil {
			t.Errorf("took one that was given up: %v", err)
		}
		healthy(t, old)
	})
}

// expire puts the end of a lease into the past: the database's clock cannot be set.
func expire(t testing.TB, s *Store) {
	t.Helper()
	if err := s.transact(t.Context(), func(tx *Tx) error { return tx.exec("UPDATE leases SET until=1") }); err != nil {
		t.Fatal(err)
	}
}

// A link is a socket before PostgreSQL's that can lose the answer to a COMMIT.
type link struct {
	dir   string
	lose  chan bool // whether a COMMIT arrives whose answer is lost
	conns sync.WaitGroup
}

func newLink(t testing.TB, socket string) *link {
	t.Helper()
	l := &link{dir: t.TempDir(), lose: make(chan bool, 1)}
	listener, err := net.Listen("unix", filepath.Join(l.dir, filepath.Base(socket)))
	if err != nil {
		t.Fatal(err)
	}
	l.conns.Go(func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			l.conns.Go(func() { l.carry(near, socket) })
		}
	})
	t.Cleanup(func() { listener.Close(); l.conns.Wait() })
	return l
}

func (l *link) carry(near net.Conn, socket string) {
	defer near.Close()
	far, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer far.Close()
	l.conns.Go(func() {
		io.Copy(near, far)
		near.Close()
	})
	for b := make([]byte, 64<<10); ; {
		n, err := near.Read(b)
		if err != nil {
			return
		}
		if n < 20 && strings.Contains(string(b[:n]), "commit") {
			select {
			case arrives := <-l.lose:
				near.Close()
				if arrives {
					far.Write(b[:n])
				}
				return
			default:
			}
		}
		if _, err := far.Write(b[:n]); err != nil {
			return
		}
	}
}

// When the answer to COMMIT is lost the store finds out what became of it. It never says of what is written that it is
// not, or the other way round.
func TestALostAnswerToACommitIsSettled(t *testing.T) {
	server := cluster.Server(t)
	l := newLink(t, server.Socket())
	url := server.URL(t)
	r := &rig{url: strings.Replace(url, filepath.Dir(server.Socket()), l.dir, 1), dirs: make(map[string]string)}
	s := r.open(t, "a1")
	for i := range 20 {
		arrives := i%2 == 0
		l.lose <- arrives
		d := device(fmt.Sprint(i))
		err := s.Update(t.Context(), func(tx *Tx) error { return tx.Insert(d) })
		there := s.View(t.Context(), func(tx *Tx) error { return tx.Get(d) })
		switch {
		case err == nil && there != nil:
			t.Errorf("%d: acknowledged, and %v", i, there)
		case !arrives && (!errors.Is(err, ErrAway) || !errors.Is(there, ErrNotFound)):
			t.Errorf("%d: lost on its way: %v, %v", i, err, there)
		case err != nil && !errors.Is(err, ErrAway):
			t.Errorf("%d: %v", i, err)
		}
	}
	healthy(t, s)
}

func TestADatabaseThatIsAwayComesBack(t *testing.T) {
	server := cluster.Server(t)
	r := &rig{url: server.URL(t), dirs: make(map[string]string)}
	s := r.open(t, "a1")
	f := s.Follow()
	insert(t, s, device("before"))
	for i, end := range []func(testing.TB){server.Stop, server.Kill} {
		end(t)
		d := device(fmt.Sprint(i))
		if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Insert(d) }); !errors.Is(err, ErrAway) {
			t.Errorf("write: %v", err)
		}
		if err := s.View(t.Context(), func(tx *Tx) error { return tx.Get(d) }); !errors.Is(err, ErrAway) {
			t.Errorf("read: %v", err)
		}
		if _, _, err := f.Next(t.Context()); !errors.Is(err, ErrAway) {
			t.Errorf("follow: %v", err)
		}
		if err := s.RenewLease(t.Context()); !errors.Is(err, ErrAway) {
			t.Errorf("renew: %v", err)
		}
		if _, err := Open(t.Context(), r.options(t, "a2")); !errors.Is(err, ErrAway) {
			t.Errorf("open: %v", err)
		}
		server.Start(t)
		if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Insert(d) }); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		next(t, f)
		healthy(t, s)
	}
}

// A server that hangs does not hang the store with it.
func TestADatabaseThatHangsIsAway(t *testing.T) {
	server := cluster.Server(t)
	r := &rig{url: server.URL(t), dirs: make(map[string]string)}
	s := r.open(t, "a1")
	s.patience = time.Second
	resume := server.Pause(t)
	if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Insert(device("x")) }); !errors.Is(err, ErrAway) {
		t.Errorf("%v", err)
	}
	resume()
	if err := note(s, 1); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	healthy(t, s)
}
