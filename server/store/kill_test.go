//go:build linux

package store

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hawser/internal/soak"
	"hawser/server/store/storetest"
)

// childOptions has the Options of a process that is to be killed, as JSON: the test binary then plays that process.
const childOptions = "HAWSER_STORE_CHILD"

// workers write at once in the child.
const workers = 6

// play writes without end, and says on stdout what was acknowledged, one line each: worker and number.
func play() int {
	var o Options
	if err := json.Unmarshal([]byte(os.Getenv(childOptions)), &o); err != nil {
		panic(err)
	}
	ctx := context.Background()
	s, err := Open(ctx, o)
	if err == nil {
		err = s.Health().Err()
	}
	if err != nil {
		fmt.Println("open:", err)
		return 1
	}
	fmt.Println("open")
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for {
				var n int
				err := s.Update(ctx, func(tx *Tx) (err error) { n, err = step(tx, w); return err })
				switch {
				case err == nil:
					fmt.Println("ack", w, n)
				case !errors.Is(err, ErrAway):
					fmt.Println("failed:", err)
				}
				s.Later(func(tx *Tx) error { return tx.Put(&Presence{Name: fmt.Sprint("p", w)}) })
			}
		})
	}
	all.Wait()
	return 0
}

// step writes what belongs together: a number, a device with that number, and a record of it.
func step(tx *Tx, w int) (n int, err error) {
	m := Measured{Key: fmt.Sprint("w", w)}
	if err := tx.Get(&m); err == nil {
		if n, err = strconv.Atoi(string(m.Relays)); err != nil {
			return 0, err
		}
	} else if !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	n++
	m.Relays = json.RawMessage(strconv.Itoa(n))
	return n, errors.Join(tx.Put(&m), tx.Insert(device(fmt.Sprint("w", w, " ", n))),
		tx.Append(Record{Time: time.Now(), Action: "step", Object: fmt.Sprint("w", w), Detail: fmt.Sprint(n)}))
}

// child is a process that writes.
type child struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	acked [workers]int // the highest number
}

func startChild(t testing.TB, o Options, before [workers]int) *child {
	t.Helper()
	b, err := json.Marshal(map[string]string{"Dir": o.Dir, "URL": o.URL, "Node": o.Node})
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(os.Args[0]), acked: before}
	c.cmd.Env = append(os.Environ(), childOptions+"="+string(b))
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	c.lines = bufio.NewScanner(out)
	return c
}

// read reads what the child says until it has acknowledged n more, or ended.
func (c *child) read(t testing.TB, n int) {
	t.Helper()
	for n > 0 && c.lines.Scan() {
		var w, number int
		if _, err := fmt.Sscanf(c.lines.Text(), "ack %d %d", &w, &number); err == nil {
			c.acked[w] = max(c.acked[w], number)
			n--
		} else if c.lines.Text() != "open" {
			t.Errorf("the child says %q", c.lines.Text())
		}
	}
}

// kill ends the child, and reads what it said before.
func (c *child) kill(t testing.TB) {
	t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	const all = 1 << 30
	c.read(t, all)
	c.cmd.Wait()
}

// nothingLost opens the store after a kill: what was acknowledged is there, and nothing is there by half.
func nothingLost(t testing.TB, o Options, c *child) (there [workers]int) {
	t.Helper()
	s := open(t, o)
	defer end(t, s)
	healthy(t, s)
	view(t, s, func(tx *Tx) error {
		list, err := tx.Devices(DeviceFilter{Domain: "plant", Limit: 1_000_000})
		if err != nil {
			return err
		}
		records, err := tx.Audit(AuditFilter{Limit: 1_000_000})
		if err != nil {
			return err
		}
		for w := range workers {
			m := Measured{Key: fmt.Sprint("w", w)}
			if err := tx.Get(&m); errors.Is(err, ErrNotFound) {
				m.Relays = json.RawMessage("0")
			} else if err != nil {
				return err
			}
			n, err := strconv.Atoi(string(m.Relays))
			if err != nil {
				return err
			}
			if there[w] = n; n < c.acked[w] || n > c.acked[w]+1 {
				t.Errorf("worker %d: %d of %d that were acknowledged", w, n, c.acked[w])
			}
			devices, written := 0, 0
			for _, d := range list {
				if strings.HasPrefix(d.Name, m.Key+" ") {
					devices++
				}
			}
			for _, r := range records {
				if r.Object == m.Key {
					written++
				}
			}
			if devices != n || written != n {
				t.Errorf("worker %d: %d devices, %d records, and it counted to %d", w, devices, written, n)
			}
		}
		return nil
	})
	return there
}

// Whoever is killed, at whatever moment: what was acknowledged is there.
func TestAKillLosesNothing(t *testing.T) {
	t.Attr("id", "S-kill")
	r := newRand(t)
	t.Run("sqlite", func(t *testing.T) {
		o := Options{Dir: newDir(t), Node: "a1"}
		var there [workers]int
		for range soak.Or(20, 200) {
			c := startChild(t, o, there)
			c.read(t, r.IntN(100))
			c.kill(t)
			there = nothingLost(t, o, c)
		}
	})
	t.Run("postgres", func(t *testing.T) {
		server := cluster.Server(t)
		o := Options{Dir: newDir(t), Node: "a1", URL: server.URL(t)}
		var there [workers]int
		for i := range soak.Or(20, 200) {
			c := startChild(t, o, there)
			c.read(t, r.IntN(100))
			roundOf(t, []int{0, 1, 0, 2, 0, 3}[i%6], server, c, r) // a server takes a second to start
			there = nothingLost(t, o, c)
		}
	})
}

// roundOf kills the server, or the node, or both in one order or the other.
func roundOf(t testing.TB, which int, server *storetest.Server, c *child, r *rand.Rand) {
	t.Helper()
	switch which {
	case 0:
		c.kill(t)
	case 1: // the node sees it, and goes on when the server is back
		c.read(t, 1)
		server.Kill(t)
		server.Start(t)
		c.read(t, 1+r.IntN(50))
		c.kill(t)
	case 2:
		server.Kill(t)
		c.kill(t)
		server.Start(t)
	case 3:
		c.kill(t)
		server.Kill(t)
		server.Start(t)
	}
}

// Two nodes do at once what may not both succeed. Whatever the order, the outcome is one that they could have had one
// after the other.
func TestTwoNodesDisagreeAboutNothing(t *testing.T) {
	t.Attr("id", "S-two")
	r := newRand(t)
	rig := newPostgres(t)
	nodes := []*Store{rig.open(t, "a1"), rig.open(t, "a2")}
	followers := []*Follower{nodes[0].Follow(), nodes[1].Follow()}
	for _, f := range followers {
		next(t, f)
	}
	m := &model{count: make(map[string]int)}
	for i := range soak.Or(200, 5000) {
		var noted [2][]string
		var running sync.WaitGroup
		meet := make(chan bool) // both transactions are open at once
		for k, s := range nodes {
			var plan []func(*Tx) error
			for range 1 + r.IntN(3) {
				plan = append(plan, m.random(r, s.Node(), i))
			}
			running.Go(func() { noted[k] = m.run(t, s, plan, meet) })
		}
		running.Wait()
		for k, f := range followers {
			if got, missed := next(t, f); missed || !slices.Equal(got, noted[1-k]) {
				t.Errorf("schedule %d: %s learns %q, %v, want %q", i, nodes[k].Node(), got, missed, noted[1-k])
			}
		}
		m.judge(t, nodes[0], i)
	}
	for _, s := range nodes {
		healthy(t, s)
	}
}

// model is what two nodes have done, by their answers.
type model struct {
	mu    sync.Mutex
	count map[string]int
}

var errNoRoom = errors.New("the name is taken")

// random is one thing that a node does. Its name is noted by the transaction.
func (m *model) random(r *rand.Rand, node string, i int) func(*Tx) error {
	name := fmt.Sprint("press ", r.IntN(3))
	switch r.IntN(4) {
	case 0: // a name that only one device may have
		return func(tx *Tx) error {
			if d, err := tx.DeviceByName("plant", name); err == nil && d.Revoked.IsZero() {
				return errNoRoom
			} else if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			tx.Note("add", name)
			return tx.Insert(device(name))
		}
	case 1:
		return func(tx *Tx) error {
			d, err := tx.DeviceByName("plant", name)
			if err != nil || !d.Revoked.IsZero() {
				return cmp.Or(err, errNoRoom)
			}
			d.Revoked = time.Now()
			tx.Note("revoke", name)
			return tx.Put(&d)
		}
	case 2: // a session that moves from one end to the other
		return func(tx *Tx) error {
			for _, change := range []struct {
				key string
				by  int
			}{{"left", -1}, {"right", 1}} {
				if err := add(tx, change.key, change.by); err != nil {
					return err
				}
			}
			tx.Note("move", "left")
			return nil
		}
	default:
		return func(tx *Tx) error {
			tx.Note("record", fmt.Sprint(i))
			return errors.Join(add(tx, "records", 1), tx.Append(Record{Time: time.Now(), Action: "record", Object: node}))
		}
	}
}

func add(tx *Tx, key string, by int) error {
	m := Measured{Key: key, Relays: json.RawMessage("0")}
	if err := tx.Get(&m); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	n, err := strconv.Atoi(string(m.Relays))
	if err != nil {
		return err
	}
	m.Relays = json.RawMessage(strconv.Itoa(n + by))
	return tx.Put(&m)
}

// run does what a node planned, and returns the subjects that it noted. The first transactions of both nodes meet.
func (m *model) run(t *testing.T, s *Store, plan []func(*Tx) error, meet chan bool) (noted []string) {
	for i, f := range plan {
		met := i > 0
		var subjects []string
		err := s.Update(context.Background(), func(tx *Tx) error {
			err := f(tx)
			subjects = nil
			for _, c := range tx.work.changes {
				subjects = append(subjects, c.Subject)
			}
			if !met {
				met = true
				select {
				case meet <- true:
				case <-meet:
				case <-time.After(50 * time.Millisecond): // the other one waits for what this one has
				}
			}
			return err
		})
		switch {
		case err == nil:
			noted = append(noted, subjects...)
			m.mu.Lock()
			for _, subject := range subjects {
				if _, number := strconv.Atoi(subject); number == nil {
					m.count["records"]++
				} else if subject == "left" {
					m.count["right"]++
				}
			}
			m.mu.Unlock()
		case !errors.Is(err, errNoRoom) && !errors.Is(err, ErrNotFound):
			t.Errorf("%v", err)
		}
	}
	return noted
}

// judge compares the store with what was answered.
func (m *model) judge(t *testing.T, s *Store, i int) {
	t.Helper()
	view(t, s, func(tx *Tx) error {
		for key, want := range map[string]int{"records": m.count["records"], "right": m.count["right"], "left": -m.count["right"]} {
			row := Measured{Key: key, Relays: json.RawMessage("0")}
			if err := tx.Get(&row); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			if string(row.Relays) != strconv.Itoa(want) {
				t.Errorf("schedule %d: %s is %s, want %d", i, key, row.Relays, want)
			}
		}
		list, err := tx.Devices(DeviceFilter{Domain: "plant", State: "pending", Limit: 1000})
		names := make(map[string]bool)
		for _, d := range list {
			if names[d.Name] {
				t.Errorf("schedule %d: two devices named %s", i, d.Name)
			}
			names[d.Name] = true
		}
		return err
	})
}
