package agent

import (
	"context"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/board/boardtest"
	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
	"hawser/internal/owner"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/session"
)

const day = 24 * time.Hour

var (
	build      = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	accessAddr = netip.MustParseAddr("192.0.2.1")
	agentAddr  = netip.MustParseAddr("198.51.100.7")
	testUID    = identity.UID{1, 15: 7}
	testName   = identity.DeviceName("plant", testUID)
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

// rig is one gateway, one fake Access Server and a network, in a bubble.
type rig struct {
	t      *testing.T
	net    *memnet.Network
	access *accesstest.Server
	owner  *identitytest.Owner
	dir    string
	opts   Options
	notes  *notes
	// session is the first one of a test that has two.
	session *session.Session
}

// bubble runs f with a gateway that has just woken in 1970, not enrolled.
func bubble(t *testing.T, f func(r *rig)) {
	t.Helper()
	bubbleAt(t, time.Time{}, f)
}

// bubbleAt is bubble at another true time, after the year 2000.
func bubbleAt(t *testing.T, truth time.Time, f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(truth))
		n := memnet.New()
		n.SetLatency(20 * time.Millisecond)
		r := &rig{t: t, net: n, dir: filepath.Join(t.TempDir(), "state"), notes: &notes{}, owner: identitytest.NewOwner("plant")}
		r.access = accesstest.New(t, identitytest.New(time.Now().Add(-4*365*day)), n.Host(accessAddr))
		r.opts = Options{
			Config: Config{Data: r.dir, Access: []string{accessAddr.String()}, Ports: []transport.Port{443}},
			Board:  boardtest.New(time.Unix(0, 0)), Build: time.Now().Add(-180 * day), Version: "v0.1.0-test",
			Log: slog.New(r.notes), DialContext: n.Host(agentAddr).DialContext,
		}
		f(r)
	})
}

// enroll puts an identity, and the owner's word for it, into the state directory as enroll would.
func (r *rig) enroll(notBefore, notAfter time.Time) {
	r.t.Helper()
	s := must(openStore(r.dir, nil))(r.t)
	key := must(s.key())(r.t)
	chain := r.access.PKI.Chain(key.Public(), testName, time.Until(notBefore), time.Until(notAfter))
	own(r.t, s, identity.MarshalChain(chain), r.access.PKI.Roots, r.owner)
}

// own stores an identity, and what an owner says of it.
func own(tb testing.TB, s *store, chainPEM []byte, roots *identity.Roots, o *identitytest.Owner) {
	tb.Helper()
	self := must(newSelf(chainPEM, must(s.key())(tb), roots))(tb)
	known := must(owner.Create(s.dir, self.peer(), o.Key))(tb)
	must(known.Take(o.DeviceChain(testUID, "gateway 7", self.Cert.Leaf.PublicKey), time.Now()))(tb)
	if err := s.saveIdentity(chainPEM, roots); err != nil {
		tb.Fatal(err)
	}
}

func (r *rig) enrollNow() { r.enroll(time.Now().Add(-time.Hour), time.Now().Add(30*day)) }

// process is an agent that runs.
type process struct {
	*Agent
	r      *rig
	cancel context.CancelFunc
	done   chan error
}

func (r *rig) start() *process {
	r.t.Helper()
	a := must(New(r.opts))(r.t)
	ctx, cancel := context.WithCancel(r.t.Context())
	p := &process{a, r, cancel, make(chan error, 1)}
	go func() { p.done <- a.Run(ctx) }()
	r.t.Cleanup(cancel)
	return p
}

// stop ends the agent, which must return nil within limit.
func (p *process) stop(limit time.Duration) {
	p.r.t.Helper()
	begin := time.Now()
	p.cancel()
	if err := <-p.done; err != nil || time.Since(begin) > limit {
		p.r.t.Errorf("Run = %v after %v, want nil within %v", err, time.Since(begin), limit)
	}
	if s := p.Status().State; s != StateStopped {
		p.r.t.Errorf("stopped in state %s", s)
	}
}

// await waits for a state and returns how long that took.
func (p *process) await(s State, limit time.Duration) time.Duration {
	p.r.t.Helper()
	return p.r.until(limit, "state "+string(s), func() bool { return p.Status().State == s })
}

// until lets fake time pass until ok holds, to 100 ms or a thousandth of limit.
func (r *rig) until(limit time.Duration, what string, ok func() bool) time.Duration {
	r.t.Helper()
	for begin := time.Now(); ; {
		synctest.Wait()
		switch took := time.Since(begin); {
		case ok():
			return took
		case took > limit:
			r.t.Fatalf("no %s within %v; log:\n%s", what, limit, r.notes)
		}
		time.Sleep(max(100*time.Millisecond, limit/1000))
	}
}

// notes is a log handler that keeps what was said.
type notes struct {
	mu    sync.Mutex
	list  []slog.Record
	with  []slog.Attr
	up    *notes
	debug bool // keep debug records too
}

func (n *notes) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || n.top().debug
}

func (n *notes) WithAttrs(a []slog.Attr) slog.Handler {
	return &notes{with: slices.Concat(n.with, a), up: n.top()}
}

func (n *notes) WithGroup(string) slog.Handler { return n }

func (n *notes) top() *notes {
	if n.up != nil {
		return n.up
	}
	return n
}

func (n *notes) Handle(_ context.Context, r slog.Record) error {
	r = r.Clone()
	r.AddAttrs(n.with...)
	top := n.top()
	top.mu.Lock()
	defer top.mu.Unlock()
	top.list = append(top.list, r)
	return nil
}

func (n *notes) count(message string) (c int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.list {
		if r.Message == message {
			c++
		}
	}
	return c
}

// values lists what key said in the records with this message.
func (n *notes) values(message, key string) (list []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.list {
		if r.Message != message {
			continue
		}
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == key {
				list = append(list, a.Value.String())
			}
			return true
		})
	}
	return list
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	text := ""
	for _, r := range n.list {
		text += r.Time.Format("15:04:05.000 ") + r.Message
		r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
		text += "\n"
	}
	return text
}

func names(t testing.TB, dir string) (list []string) {
	t.Helper()
	for _, e := range must(os.ReadDir(dir))(t) {
		list = append(list, e.Name())
	}
	return list
}

func write(t testing.TB, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func removeAll(r *rig, files []string) {
	for _, path := range paths(r, files) {
		if err := os.Remove(path); err != nil {
			r.t.Fatal(err)
		}
	}
}

func writeAll(r *rig, files []string) {
	for _, path := range paths(r, files) {
		write(r.t, path, "damaged", 0o600)
	}
}

func contents(r *rig, files []string) (text string) {
	for _, path := range paths(r, files) {
		b, _ := os.ReadFile(path)
		text += string(b) + "\n"
	}
	return text
}

// block puts directories where the next generations of the owner's files are to go.
func block(r *rig) {
	for _, path := range paths(r, []string{"owner.0", "owner.1"}) {
		os.Remove(path)
		if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
			r.t.Fatal(err)
		}
	}
}
