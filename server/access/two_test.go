package access

import (
	"context"
	"crypto"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/internal/soak"
	"hawser/internal/wait"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// Two Access Servers on one database, whose clocks are 30 s apart, in schedules of chance. Whatever is cut, dies and
// comes back meanwhile: when it has settled they agree with the store and with each other, what was acknowledged is
// there, no session lives twice, nobody who was revoked is attached or granted anything, and both serve.
func TestTwoServersSettle(t *testing.T) {
	t.Attr("id", "S-two")
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	n := soak.Or(30, 200)
	t.Attr("cases", strconv.Itoa(n))
	for i := range n {
		seed := seed + uint64(i)
		ok := t.Run(fmt.Sprint("SEED=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newDuel(t, seed).play() })
		})
		if !ok {
			t.Fatalf("again with SEED=%d", seed)
		}
	}
}

// duel is a pair of servers, a few devices and relays, and an operator, in the hands of chance.
type duel struct {
	t      *testing.T
	db     *database
	nodes  [2]*seat
	admins chan *someone // each makes one request at a time

	revoking int       // how many devices play has let be revoked
	members  []*member // devices, then relays
	life     context.Context
	living   sync.WaitGroup

	mu      sync.Mutex // guards the rest
	r       *rand.Rand
	steps   []string          // what happened, for the report of a failure
	opened  map[string]bool   // sessions that were acknowledged
	ended   map[string]bool   // whose end was acknowledged
	revoked map[string]bool   // devices whose revocation was acknowledged
	relayOf map[string]string // of SESSION EPOCH, as either end was told
}

// seat is one of the two servers, which a service manager starts again.
type seat struct {
	*world
	cord  *cord
	crash func()        // ends it without a word to anybody; nil: it is down
	turn  chan struct{} // of the clients, who shake hands one after the other
}

// member is a device or relay. It keeps a connection to one of the servers, and tries the other one when it has none.
type member struct {
	name string
	who  *someone

	hello wire.Hello
	at    int      // the seat
	conn  net.Conn // nil: none
}

func newDuel(t *testing.T, seed uint64) *duel {
	d := &duel{t: t, r: rand.New(rand.NewPCG(seed, 2)), opened: map[string]bool{}, ended: map[string]bool{},
		revoked: map[string]bool{}, relayOf: map[string]string{}}
	bus := new(memoryBus)
	first, second := &cord{bus: bus}, &cord{bus: bus}
	p := pairOver(t, first, second)
	d.db = p.db
	turn := make(chan struct{}, 1)
	d.nodes = [2]*seat{{world: p.world, cord: first, turn: turn}, {world: p.second, cord: second, turn: turn}}
	d.nodes[1].cfg.Now = func() time.Time { return time.Now().Add(30 * time.Second) }
	synctest.Wait()
	d.members = append(d.members, &member{name: "press 1", who: p.device, hello: p.device.hello("01")})
	for _, name := range []string{"press 2", "press 3", "press 4"} {
		who := p.addDevice(p.admin, name)
		d.members = append(d.members, &member{name: name, who: who, hello: who.hello("01")})
	}
	d.members = append(d.members, &member{name: "r2", who: p.newRelay("r2"), hello: relayHello("cd"), at: 1},
		&member{name: "r3", who: p.newRelay("r3"), hello: relayHello("ef")})
	d.admins = make(chan *someone, 4)
	for range cap(d.admins) {
		who := p.newUser("plant", "admin") // one user on several machines: a session is moved by its own
		useOnce(who.Key)
		d.admins <- who
	}
	p.end()
	for _, m := range d.members {
		useOnce(m.who.Key)
	}
	return d
}

func (d *duel) play() {
	var end context.CancelFunc
	d.life, end = context.WithCancel(context.Background())
	for _, n := range d.nodes {
		n.begin(d.db)
	}
	for _, m := range d.members {
		d.living.Go(func() { d.live(m) })
	}
	defer func() {
		end()
		d.living.Wait()
		for _, n := range d.nodes {
			n.crash()
		}
		if d.t.Failed() {
			d.t.Logf("%s", strings.Join(d.steps, "\n"))
		}
	}()
	time.Sleep(30 * time.Second)
	for range 25 {
		var acts sync.WaitGroup
		for range 1 + d.dice(3) {
			f := d.action()
			acts.Go(f)
		}
		acts.Wait()
		time.Sleep(time.Duration(d.dice(8000)) * time.Millisecond)
	}
	for _, n := range d.nodes {
		n.cord.set(false)
		n.begin(d.db)
	}
	d.say("settles")
	time.Sleep(4 * time.Minute) // a session that was lost has a minute, twice when its end could not be written
	synctest.Wait()
	d.judge()
}

func (d *duel) dice(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

func (d *duel) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.steps = append(d.steps, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

// begin starts a server that is down, and starts it again whenever it ends.
func (n *seat) begin(db *database) {
	if n.crash != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	n.crash = func() {
		was := n.cord.isCut()
		n.cord.set(true)
		cancel()
		<-done
		n.cord.set(was)
		n.crash = nil
	}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			n.serve(ctx, db)
			wait.Sleep(ctx, 5*time.Second)
		}
	}()
}

// useOnce signs with keys before many do at once. Packages ed25519 and tls keep what they compute of a key or certificate
// behind weak pointers, through which the race detector does not see. So each key is first used, and each certificate first
// parsed, by one alone.
func useOnce(keys ...crypto.PrivateKey) {
	for _, key := range keys {
		must(key.(crypto.Signer).Sign(nil, nil, crypto.Hash(0)))
	}
}

// serve is the life of one process.
func (n *seat) serve(ctx context.Context, db *database) {
	st, err := store.Open(ctx, store.Options{Database: db.db, Node: n.cfg.Name.ID, Shared: true, Fault: n.cord.err})
	if err != nil {
		return
	}
	defer st.Close()
	n.cfg.Store = st
	n.server = must(New(n.cfg))
	useOnce(must(n.server.Certificate()).PrivateKey, n.cfg.TimeKey, n.cfg.Grant.Key, n.cfg.Issuing.Key)
	ctx, end := context.WithCancel(ctx)
	defer end()
	port := must(n.net.Host(n.addr).Serve(443, func(conn net.Conn) { n.accept(ctx, conn) }))
	defer port.Stop()
	n.server.Run(ctx)
	end()
}

// dialled is a connection of a client that takes no failure ill.
func (n *seat) dialled(ctx context.Context, alpn string, who *someone) (*tls.Conn, error) {
	raw, err := n.net.Host(clientAddr).DialContext(ctx, "tcp", netip.AddrPortFrom(n.addr, 443).String())
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, who.TLS(alpn))
	n.turn <- struct{}{}
	defer func() { <-n.turn }()
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// live keeps a member connected.
func (d *duel) live(m *member) {
	for d.life.Err() == nil {
		d.mu.Lock()
		at, h := m.at, m.hello
		d.mu.Unlock()
		err := d.stay(m, d.nodes[at], h)
		d.mu.Lock()
		if m.at == at {
			m.at = 1 - at
		}
		d.mu.Unlock()
		if err != nil && d.dice(2) == 0 {
			wait.Sleep(d.life, 3*time.Second)
		}
		wait.Sleep(d.life, time.Duration(200+d.dice(1500))*time.Millisecond)
	}
}

// stay is one connection, from its hello to its end.
func (d *duel) stay(m *member, n *seat, h wire.Hello) error {
	ctx, cancel := context.WithTimeout(d.life, 30*time.Second)
	defer cancel()
	conn, err := n.dialled(ctx, transport.ALPNAccess, m.who)
	if err != nil {
		return err
	}
	defer context.AfterFunc(d.life, func() { conn.NetConn().Close() })()
	defer conn.NetConn().Close()
	if err := accesstest.Prelude(conn); err != nil {
		return err
	}
	d.mu.Lock()
	gone := d.revoked[m.name]
	d.mu.Unlock()
	if err := wire.WriteJSON(conn, wire.TypeHello, h); err != nil {
		return err
	}
	if _, err := wire.Expect(conn, wire.TypeWelcome); err != nil {
		return err
	}
	if gone {
		d.t.Errorf("%s is welcome at %s after it was revoked", m.name, n.cfg.Name.ID)
	}
	if err := wire.Write(conn, wire.TypePing, wire.Ping(20*time.Minute)); err != nil {
		return err
	}
	d.mu.Lock()
	m.conn = conn
	over := m.hello.Instance != h.Instance // it was started anew while this connection was being made
	d.mu.Unlock()
	if over {
		return nil
	}
	for {
		f, err := wire.Read(conn)
		if err != nil {
			return nil
		}
		var o wire.Offer
		if f.Type == wire.TypeOffer && f.Decode(&o) == nil && d.dice(10) > 0 {
			d.told(o)
			wire.WriteJSON(conn, wire.TypeOfferAck, wire.OfferAck{Session: o.Session})
		}
	}
}

// told notes an offer: both ends of an epoch are sent to one relay, always.
func (d *duel) told(o wire.Offer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := fmt.Sprint(o.Session, " ", o.Epoch)
	if before := d.relayOf[key]; before != "" && before != o.Relay.Name {
		d.t.Errorf("epoch %s is on %s and on %s", key, before, o.Relay.Name)
	}
	d.relayOf[key] = o.Relay.Name
}

// ask is a request of the operator's; status 0: no answer.
func (d *duel) ask(n *seat, method, path string, body, answer any) (status int) {
	ctx, cancel := context.WithTimeout(context.Background(), 31*time.Second)
	defer cancel()
	who := <-d.admins
	defer func() { d.admins <- who }()
	start := time.Now()
	conn, err := n.dialled(ctx, transport.ALPNAPI, who)
	if err != nil {
		return 0
	}
	defer context.AfterFunc(ctx, func() { conn.NetConn().Close() })()
	response, raw, err := accesstest.Ask(conn, method, path, body)
	if took := time.Since(start); response == nil && took > 30*time.Second {
		d.t.Errorf("%s %s has no answer after %v", method, path, took)
	}
	if err == nil && answer != nil && response.StatusCode < 300 {
		err = json.Unmarshal(raw, answer)
	}
	if err != nil {
		return 0
	}
	return response.StatusCode
}

// action draws something that happens.
func (d *duel) action() func() {
	n, m := d.nodes[d.dice(2)], d.members[d.dice(4)]
	switch k := d.dice(20); {
	case k < 6:
		return func() { d.open(n, m) }
	case k < 9:
		return func() { d.move(n) }
	case k < 11:
		return func() { d.end(n) }
	case k < 12 && d.revoking < 2: // some are to be left
		d.revoking++
		return func() { d.revoke(n, m) }
	case k < 15:
		return func() { d.reconnect(d.members[d.dice(len(d.members))]) }
	}
	// What is done to a server is done now: it is no matter for two at once.
	switch k := d.dice(6); {
	case k < 2:
		d.say("%s: cut %v", n.cfg.Name.ID, !n.cord.isCut())
		n.cord.set(!n.cord.isCut())
	case k < 4:
		n.cord.set(false)
	case n.crash != nil && k == 4:
		d.say("%s: crash", n.cfg.Name.ID)
		n.crash()
	default:
		d.say("%s: start", n.cfg.Name.ID)
		n.begin(d.db)
	}
	return func() {}
}

func (d *duel) open(n *seat, m *member) {
	d.mu.Lock()
	gone := d.revoked[m.name]
	d.mu.Unlock()
	var answer api.SessionAnswer
	status := d.ask(n, "POST", "/api/v1/sessions", api.SessionRequest{Device: m.name, SessionVersion: wire.SessionVersion}, &answer)
	d.say("%s: open %s: %d %s", n.cfg.Name.ID, m.name, status, answer.Offer.Session)
	if status == http.StatusCreated {
		if gone {
			d.t.Errorf("a session with %s, which was revoked", m.name)
		}
		d.told(answer.Offer)
		d.note(d.opened, answer.Offer.Session)
	}
}

func (d *duel) note(m map[string]bool, key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m[key] = true
}

// some returns one of the sessions that were opened, and perhaps ended since.
func (d *duel) some() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.opened) == 0 {
		return newID()
	}
	ids := slices.Sorted(maps.Keys(d.opened))
	return ids[d.r.IntN(len(ids))]
}

func (d *duel) move(n *seat) {
	id := d.some()
	var answer api.SessionAnswer
	epoch := 1 + d.dice(3)
	status := d.ask(n, "POST", "/api/v1/sessions/"+id+"/move", api.MoveRequest{Epoch: epoch, Reason: transport.LinkLost}, &answer)
	d.say("%s: move %s of epoch %d: %d, epoch %d", n.cfg.Name.ID, id, epoch, status, answer.Offer.Epoch)
	if status == http.StatusOK {
		d.told(answer.Offer)
	}
}

func (d *duel) end(n *seat) {
	id := d.some()
	status := d.ask(n, "DELETE", "/api/v1/sessions/"+id, nil, nil)
	d.say("%s: end %s: %d", n.cfg.Name.ID, id, status)
	if status == http.StatusNoContent {
		d.note(d.ended, id)
	}
}

func (d *duel) revoke(n *seat, m *member) {
	status := d.ask(n, "POST", "/api/v1/devices/"+strings.ReplaceAll(m.name, " ", "%20")+"/revoke", nil, nil)
	d.say("%s: revoke %s: %d", n.cfg.Name.ID, m.name, status)
	if status == http.StatusOK {
		d.note(d.revoked, m.name)
	}
}

// reconnect ends a connection, sometimes as another process.
func (d *duel) reconnect(m *member) {
	anew := d.dice(6) == 0
	d.mu.Lock()
	conn := m.conn
	if anew {
		m.hello.Instance = fmt.Sprintf("%04x", d.r.IntN(1<<16))
	}
	d.mu.Unlock()
	d.say("%s reconnects, as another process: %v", m.name, anew)
	if conn != nil {
		conn.(*tls.Conn).NetConn().Close()
	}
}

// judge compares the nodes with the store, and with what was acknowledged.
func (d *duel) judge() {
	n := d.nodes[0]
	open := make(map[string]int)
	keys := make(map[identity.SPKI]bool)
	ends := make(map[string]bool)
	n.view(func(tx *store.Tx) error {
		sessions, err := tx.OpenSessions()
		for _, r := range sessions {
			open[r.ID] = r.Epoch
			d.judgeOpen(tx, r)
		}
		revoked, bad := tx.Revoked()
		for _, k := range revoked {
			keys[k.SPKI] = true
		}
		records, worse := tx.Audit(store.AuditFilter{Limit: 100_000})
		for _, node := range []string{"a1", "a2"} {
			chain, err := tx.Audit(store.AuditFilter{Limit: 100_000, Node: node})
			if err = errors.Join(err, store.VerifyAudit(chain)); err != nil {
				d.t.Error(err)
			}
		}
		for _, r := range records {
			if r.Action == actionSessionEnd {
				ends[strings.TrimPrefix(r.Detail, "session ")[:32]] = true
			}
		}
		for id := range d.opened {
			r := store.Session{ID: id}
			if err := tx.Get(&r); err != nil || d.ended[id] && r.Ended.IsZero() || !r.Ended.IsZero() && !ends[id] {
				d.t.Errorf("session %s, end acknowledged: %v, audit of the end: %v: %v %+v", id, d.ended[id], ends[id], err, r)
			}
		}
		return errors.Join(err, bad, worse)
	})
	for _, n := range d.nodes {
		d.judgeNode(n, open, keys)
	}
	for _, n := range d.nodes {
		d.judgeService(n, keys)
	}
}

// judgeOpen looks at a session that the store has as open.
func (d *duel) judgeOpen(tx *store.Tx, r store.Session) {
	m := store.Member{Kind: identity.KindDevice, ID: r.Device.String()}
	if err := tx.Get(&m); err != nil || !m.Revoked.IsZero() {
		d.t.Errorf("session %s is open with %s, revoked %v, %v", r.ID, m.Name, m.Revoked, err)
	}
	for _, device := range d.members[:4] {
		if device.name == m.Name && device.hello.Instance != r.Instance {
			d.t.Errorf("session %s is open with process %s of %s, which is %s now", r.ID, r.Instance, m.Name, device.hello.Instance)
		}
	}
}

func (d *duel) judgeNode(n *seat, open map[string]int, keys map[identity.SPKI]bool) {
	t, name := d.t, n.cfg.Name.ID
	known := make(map[string]int)
	for id := range n.server.sessions.ids() {
		known[id] = n.server.sessions.changeOf(id).Record.Epoch
	}
	if !maps.Equal(known, open) {
		t.Errorf("%s knows the sessions %v, the store has %v", name, known, open)
	}
	for spki := range keys {
		if !n.server.presence.isRevoked(spki) {
			t.Errorf("%s does not know that %v is revoked", name, spki)
		}
	}
	if got := n.poolNames(); !slices.Equal(got, []string{"r2", "r3"}) {
		t.Errorf("pool of %s: %v", name, got)
	}
	for _, m := range d.members[:4] {
		is := keys[m.who.spki()]
		if d.revoked[m.name] && !is {
			t.Errorf("%s was revoked, and is not in the list", m.name)
		}
		if is && n.server.presence.find(identity.DeviceName("plant", m.who.id.UID)) != nil {
			t.Errorf("%s is attached to %s", m.name, name)
		}
	}
}

// judgeService wants sessions with all who were not revoked, and with nobody else.
func (d *duel) judgeService(n *seat, keys map[identity.SPKI]bool) {
	for _, m := range d.members[:4] {
		is, status := keys[m.who.spki()], 0
		// One offer of ten is not answered. The server takes the device for gone then, until that has found its way again.
		for try := 0; try < 30 && status != http.StatusCreated; try++ {
			status = d.ask(n, "POST", "/api/v1/sessions", api.SessionRequest{Device: m.name, SessionVersion: wire.SessionVersion}, nil)
			if status != http.StatusCreated && !is {
				time.Sleep(10 * time.Second)
			}
		}
		if (status == http.StatusCreated) == is {
			d.t.Errorf("%s opens %s, revoked %v: %d", n.cfg.Name.ID, m.name, is, status)
		}
	}
}
