//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/soak"
	"hawser/internal/wait"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/api"
	"hawser/transport/api/apitest"
	"hawser/transport/wire"
)

// A server that is killed while it enrolls, revokes, opens and ends starts by itself, has everything that it had
// acknowledged, and nothing that is half done.
func TestKilledServerLosesNothing(t *testing.T) {
	t.Attr("id", "S-kill")
	n := soak.Or(20, 200)
	t.Attr("cases", strconv.Itoa(n))
	l := newLoad(t, "")
	for i := range n {
		l.during(fmt.Sprintf("%d: the server is killed", i), l.server.kill)
		l.judge(l.copyStore())
		l.serve()
	}
	l.wantService()
	l.wantLoad()
}

// The same of a server with PostgreSQL, when either is killed, or both, and when PostgreSQL hangs.
func TestKilledPostgresLosesNothing(t *testing.T) {
	t.Attr("id", "S-kill")
	n := soak.Or(4, 60)
	t.Attr("cases", strconv.Itoa(n))
	db := cluster.Server(t)
	l := newLoad(t, db.URL(t))
	for i := range n {
		switch i % 4 {
		case 0:
			l.during(fmt.Sprintf("%d: PostgreSQL is killed", i), func() { db.Kill(t) })
			l.wantBusy()
			db.Start(t)
		case 1:
			l.during(fmt.Sprintf("%d: the server is killed", i), l.server.kill)
			l.serve()
		case 2:
			var resume func()
			l.during(fmt.Sprintf("%d: PostgreSQL hangs", i), func() { resume = db.Pause(t) })
			l.wantBusy()
			resume()
		case 3:
			l.during(fmt.Sprintf("%d: both are killed", i), func() { l.server.kill(); db.Kill(t) })
			db.Start(t)
			l.serve()
		}
		l.wantService()
		l.judge(l.openStore(store.Options{Dir: filepath.Join(t.TempDir(), "judge"), URL: l.url, Node: "judge", Shared: true}))
	}
	l.wantLoad()
}

// acknowledged counts what the clients were told.
func (l *load) acknowledged() (n int) {
	l.note(func() { n = len(l.added) + len(l.enrolled) + len(l.revoked) + len(l.opened) + len(l.ended) })
	return n
}

// least is how often the rarest thing was acknowledged.
func (l *load) least() int {
	return min(len(l.enrolled), len(l.revoked), len(l.opened), len(l.ended))
}

// wantLoad makes sure that there was something to lose. A relay is registered some seconds after its server has started, and
// where the kills came before that no session was opened: then the load goes on for as long as that takes, without a kill.
func (l *load) wantLoad() {
	l.t.Helper()
	for end := time.Now().Add(patience); l.least() == 0 && time.Now().Before(end); {
		l.during("once more", func() { wait.Sleep(l.t.Context(), time.Second) })
	}
	l.t.Logf("acknowledged: %d devices added, %d enrolled, %d revoked, %d sessions opened, %d ended", len(l.added), len(l.enrolled), len(l.revoked), len(l.opened), len(l.ended))
	if l.least() == 0 {
		l.t.Error("nothing was there to be lost")
	}
}

// load is an infrastructure whose clients ask as fast as it answers, and remember what they were told.
type load struct {
	*infra
	url    string
	by     string // what starts a server with descriptors, as taskset -c 0; empty: nothing else
	code   string // of admin's login
	domain *apitest.Domain
	admin  *accesstest.Client

	mu                     sync.Mutex // guards the rest
	added, enrolled        map[string]*accesstest.Client
	revoked, opened, ended map[string]bool
}

func newLoad(t *testing.T, url string) *load {
	t.Helper()
	in := &infra{t: t, dir: t.TempDir(), ports: freePorts(t, 3)}
	l := &load{infra: in, url: url, added: map[string]*accesstest.Client{}, enrolled: map[string]*accesstest.Client{},
		revoked: map[string]bool{}, opened: map[string]bool{}, ended: map[string]bool{}}
	args := []string{"init", "--dir", in.path("server"), "--host", "127.0.0.1", "--ports", strings.Join(in.ports, ","), "--json"}
	if url != "" {
		args = append(args, "--store", url)
	}
	var made struct {
		Code string        `json:"admin_code"`
		Root identity.SPKI `json:"root_sha256"`
	}
	command(t, &made, "hawser-server", args...)
	l.code = made.Code
	l.serve()
	l.domain = apitest.NewDomain("default", made.Root)
	l.admin = l.domain.Admin
	var answer api.LoginAnswer
	if status, code := l.ask(nil, "POST", "/api/v1/login", l.domain.Login(made.Code, "admin"), &answer); status != http.StatusOK {
		t.Fatalf("login: %d %s", status, code)
	}
	if err := l.admin.Take(answer.Chain); err != nil {
		t.Fatal(err)
	}
	return l
}

// dial connects as a client. That the server is who it says is shown elsewhere.
func (l *load) dial(ctx context.Context, c *accesstest.Client, alpn string) (*tls.Conn, error) {
	conn, err := (&tls.Dialer{Config: c.TLS(alpn)}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", l.ports[0]))
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn), nil
}

// ask is one request. Status 0: no answer.
func (l *load) ask(c *accesstest.Client, method, path string, body, answer any) (status int, code transport.Reason) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := l.dial(ctx, c, transport.ALPNAPI)
	if err != nil {
		return 0, ""
	}
	response, raw, err := accesstest.Ask(conn, method, path, body)
	if err != nil {
		return 0, ""
	}
	var problem api.Problem
	if response.StatusCode >= 300 {
		answer = &problem
	}
	if answer != nil {
		if err := json.Unmarshal(raw, answer); err != nil {
			l.t.Errorf("%s %s: %d %s: %v", method, path, response.StatusCode, raw, err)
		}
	}
	return response.StatusCode, problem.Code
}

// prelude connects to the Access Server and sends a purpose.
func (l *load) prelude(ctx context.Context, c *accesstest.Client, purpose wire.Type, body any) (*tls.Conn, error) {
	conn, err := l.dial(ctx, c, transport.ALPNAccess)
	if err != nil {
		return nil, err
	}
	if err = accesstest.Prelude(conn); err == nil {
		err = wire.WriteJSON(conn, purpose, body)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// add makes a device that waits for its gateway.
func (l *load) add(name string) (d apitest.Device, status int, code transport.Reason) {
	d = l.domain.Device(name)
	status, code = l.ask(l.admin, "POST", "/api/v1/devices", d.Request, nil)
	return d, status, code
}

func (l *load) enroll(ctx context.Context, d apitest.Device) (*accesstest.Client, error) {
	c := accesstest.NewClient()
	conn, err := l.prelude(ctx, nil, wire.TypeEnroll, d.Enroll(c))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	f, err := wire.Expect(conn, wire.TypeIdentity)
	if err != nil {
		return nil, err
	}
	var id wire.Identity
	if err := f.Decode(&id); err != nil {
		return nil, err
	}
	return c, d.Take(c, id)
}

// hello is that of a Runtime.
func hello(c *accesstest.Client) wire.Hello {
	return wire.Hello{Version: "test", Instance: "01", SessionVersion: wire.SessionVersion, Key: c.Stated}
}

func (l *load) note(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// during does something after a moment of load, and returns when the clients have noticed.
func (l *load) during(what string, do func()) {
	l.t.Helper()
	l.t.Log(what)
	ctx, cancel := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	for range 3 {
		clients.Go(func() { l.addAndRevoke(ctx) })
	}
	clients.Go(func() { l.openAndEnd(ctx) })
	for before, end := l.acknowledged(), time.Now().Add(patience); l.acknowledged() < before+4 && time.Now().Before(end); {
		wait.Sleep(ctx, time.Millisecond) // on a busy machine the first answer takes a while
	}
	wait.Sleep(ctx, wait.Random(500*time.Millisecond))
	do()
	cancel()
	clients.Wait()
}

// addAndRevoke makes devices, enrolls them, and revokes every second one.
func (l *load) addAndRevoke(ctx context.Context) {
	for ctx.Err() == nil {
		name := "press " + identity.NewUID().String()[:8]
		added, status, _ := l.add(name)
		if status != http.StatusCreated {
			return
		}
		uid := added.UID.String()
		l.note(func() { l.added[uid] = nil })
		c, err := l.enroll(ctx, added)
		if err != nil {
			return
		}
		l.note(func() { l.enrolled[uid] = c })
		if rand.IntN(2) == 0 {
			continue
		}
		if status, _ := l.ask(l.admin, "POST", "/api/v1/devices/"+uid+"/revoke", nil, nil); status != http.StatusOK {
			return
		}
		l.note(func() { l.revoked[uid] = true })
	}
}

// openAndEnd is a device that is online, and a technician who opens and ends sessions with it.
func (l *load) openAndEnd(ctx context.Context) {
	added, status, _ := l.add("hall " + identity.NewUID().String()[:8])
	if status != http.StatusCreated {
		return
	}
	c, err := l.enroll(ctx, added)
	if err != nil {
		return
	}
	conn, err := l.prelude(ctx, c, wire.TypeHello, hello(c))
	if err != nil {
		return
	}
	var reader sync.WaitGroup
	defer reader.Wait()
	defer conn.NetConn().Close()
	reader.Go(func() {
		for {
			f, err := wire.Read(conn)
			if err != nil {
				return
			}
			var o wire.Offer
			if f.Type == wire.TypeOffer && f.Decode(&o) == nil {
				wire.WriteJSON(conn, wire.TypeOfferAck, wire.OfferAck{Session: o.Session})
			}
		}
	})
	for ctx.Err() == nil {
		var answer api.SessionAnswer
		status, code := l.ask(l.admin, "POST", "/api/v1/sessions", api.SessionRequest{Device: added.UID.String(), SessionVersion: wire.SessionVersion}, &answer)
		if code == transport.NoRelay { // it has just started
			wait.Sleep(ctx, 20*time.Millisecond)
			continue
		}
		if status != http.StatusCreated {
			return
		}
		id := answer.Offer.Session
		l.note(func() { l.opened[id] = true })
		if rand.IntN(2) == 0 {
			continue
		}
		if status, _ := l.ask(l.admin, "DELETE", "/api/v1/sessions/"+id, nil, nil); status != http.StatusNoContent {
			return
		}
		l.note(func() { l.ended[id] = true })
	}
}

// wantBusy wants an answer in time while the database is away.
func (l *load) wantBusy() {
	l.t.Helper()
	start := time.Now()
	_, status, code := l.add("while it is away")
	if took := time.Since(start); code != transport.Busy || took > 30*time.Second {
		l.t.Errorf("without the database: %d %q after %v", status, code, took)
	}
}

// wantService waits until a device can be added and enrolled.
func (l *load) wantService() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	start := time.Now()
	for {
		added, status, code := l.add("again " + identity.NewUID().String()[:8])
		if status == http.StatusCreated {
			if _, err := l.enroll(ctx, added); err == nil {
				break
			}
		}
		if !wait.Sleep(ctx, 100*time.Millisecond) {
			l.t.Fatalf("it does not come back: %d %q", status, code)
		}
	}
	l.t.Logf("it works again after %v", time.Since(start).Round(time.Millisecond))
}

func (l *load) copyStore() *store.Store {
	l.t.Helper()
	dir := filepath.Join(l.t.TempDir(), "store")
	if out, err := exec.Command("cp", "-a", l.path("server/access/store"), dir).CombinedOutput(); err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
	return l.openStore(store.Options{Dir: dir, Node: "access1"})
}

func (l *load) openStore(o store.Options) *store.Store {
	l.t.Helper()
	st, err := store.Open(l.t.Context(), o)
	if err != nil {
		l.t.Fatal(err)
	}
	return st
}

// judge compares a store with what was acknowledged, and looks for what is half done. It closes the store.
func (l *load) judge(st *store.Store) {
	l.t.Helper()
	if err := st.Health().Err(); err != nil {
		l.t.Error(err)
	}
	err := st.View(l.t.Context(), func(tx *store.Tx) error {
		said, err := l.trail(tx)
		if err != nil {
			return err
		}
		for uid := range l.added {
			l.judgeDevice(tx, uid, said)
		}
		for id := range l.opened {
			r := store.Session{ID: id}
			if err := tx.Get(&r); err != nil || l.ended[id] && r.Ended.IsZero() || !said["session-open "+id] || !r.Ended.IsZero() && !said["session-end "+id] {
				l.t.Errorf("session %s, acknowledged, ended %v: %v %+v", id, l.ended[id], err, r)
			}
		}
		devices, err := tx.Devices(store.DeviceFilter{Domain: "default", Limit: 100_000})
		if len(devices) < len(l.added) {
			l.t.Errorf("%d devices, %d were added", len(devices), len(l.added))
		}
		for _, m := range devices {
			l.judgeDevice(tx, m.ID, said)
		}
		return err
	})
	if err = errors.Join(err, st.Close()); err != nil {
		l.t.Error(err)
	}
}

// trail returns which actions the audit has, as "ACTION OBJECT", and for sessions "ACTION SESSION".
func (l *load) trail(tx *store.Tx) (map[string]bool, error) {
	records, err := tx.Audit(store.AuditFilter{Limit: 1_000_000, Node: "access1"})
	said := make(map[string]bool)
	for _, r := range records {
		said[r.Action+" "+r.Object] = true
		if words := strings.Fields(strings.ReplaceAll(r.Detail, ":", " ")); len(words) > 1 && words[0] == "session" {
			said[r.Action+" "+words[1]] = true
		}
	}
	return said, errors.Join(err, store.VerifyAudit(records))
}

func (l *load) judgeDevice(tx *store.Tx, uid string, said map[string]bool) {
	m := store.Member{Kind: identity.KindDevice, ID: uid}
	if err := tx.Get(&m); err != nil {
		l.t.Errorf("device %s: %v", uid, err)
		return
	}
	var faults []string
	want := func(ok bool, what string) {
		if !ok {
			faults = append(faults, what)
		}
	}
	name := m.Identity().String()
	code := store.Code{Lookup: m.Code}
	want(tx.Get(&code) == nil && code.Subject == uid && code.Hash == m.CodeHash, "it has no code")
	want(said["device-add "+name], "nobody added it")
	if c := l.enrolled[uid]; c != nil {
		want(m.IsEnrolled() && m.SPKI == identity.CertSPKI(c.Chain[0]), "its enrollment is lost")
	}
	if m.IsEnrolled() {
		want(m.Chain != "" && !m.NotAfter.IsZero() && !m.SPKI.IsZero(), "it is enrolled without a certificate")
		want(said["enroll "+name], "nobody enrolled it")
	}
	want(!l.revoked[uid] || !m.Revoked.IsZero(), "its revocation is lost")
	if !m.Revoked.IsZero() {
		want(said["device-revoke "+name], "nobody revoked it")
		want(!m.IsEnrolled() || tx.Get(&store.RevokedKey{SPKI: m.SPKI}) == nil, "its key is not revoked")
	}
	if len(faults) > 0 {
		l.t.Errorf("device %s: %s", uid, strings.Join(faults, ", "))
	}
}
