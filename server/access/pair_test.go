package access

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
)

// cord is what connects a node with the database and the bus that it shares. It
// can be cut.
type cord struct {
	bus Bus

	mu    sync.Mutex // guards the rest
	cut   bool
	calls int // of the database that work before it is cut; 0: it is not
}

func (c *cord) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

func (c *cord) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut, c.calls = cut, 0
}

// cutAfter cuts it when the database was called n times more.
func (c *cord) cutAfter(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = n + 1
}

func (c *cord) err() error {
	c.mu.Lock()
	if c.calls > 0 {
		c.calls--
		c.cut = c.cut || c.calls == 0
	}
	c.mu.Unlock()
	if c.isCut() {
		return fmt.Errorf("the database %w", store.ErrAway)
	}
	return nil
}

func (c *cord) Join(node string, h BusHandler) (func(), error) {
	return c.bus.Join(node, BusHandler{
		Hint: func() {
			if !c.isCut() {
				h.Hint()
			}
		},
		Answer: func(ctx context.Context, q []byte) []byte {
			if c.isCut() {
				return nil
			}
			return h.Answer(ctx, q)
		},
	})
}

func (c *cord) Hint() {
	if !c.isCut() {
		c.bus.Hint()
	}
}

func (c *cord) Request(ctx context.Context, node string, q []byte) ([]byte, error) {
	if err := c.err(); err != nil {
		return nil, err
	}
	return c.bus.Request(ctx, node, q)
}

// pair is two Access Servers that are one. The device and relay r1 are attached
// to the first, which is the stage; the second has the same users.
type pair struct {
	*stage
	cord       *cord // of the first
	second     *world
	secondCord *cord
}

func newPair(t testing.TB) *pair {
	bus := new(memoryBus)
	p := pairOver(t, &cord{bus: bus}, &cord{bus: bus})
	synctest.Wait()
	return p
}

// pairOver makes a pair whose nodes have a cord each; they may not know of each
// other yet.
func pairOver(t testing.TB, first, second *cord) *pair {
	w := newIdleWorld(t, func(c *Config) { c.Bus, c.Shared = first, true })
	w.cfg.Store = w.db.open("a1", true, first.err)
	w.start()
	s := &stage{world: w, admin: w.login()}
	s.device = w.addDevice(s.admin, "press 1")
	s.relay = w.control(w.enrollRelay(), relayHello("ab12"))
	s.runtime = w.control(s.device, hello("01"))
	p := &pair{stage: s, cord: first, secondCord: second}
	other := *w
	p.second = &other
	p.second.addr = netip.MustParseAddr("192.0.2.2")
	p.second.cfg = p.second.config(w.pki.Another("a2", time.Now()))
	p.second.cfg.Store, p.second.cfg.Bus, p.second.cfg.Shared = w.db.open("a2", true, second.err), second, true
	p.second.start()
	return p
}

// end lets everything close. It may come after crash.
func (p *pair) end() {
	p.stage.end()
	p.second.stop()
}

// crash ends the first node without a word to anybody.
func (p *pair) crash() {
	p.cord.set(true)
	p.stop()
	p.stop = func() {}
}

// here returns what is needed to work at the second node.
func (p *pair) here() *stage {
	return &stage{world: p.second, admin: p.admin, device: p.device, runtime: p.runtime, relay: p.relay}
}

func (w *world) poolNames() (names []string) {
	w.t.Helper()
	for _, r := range w.server.presence.pool().Relays {
		names = append(names, r.Name)
	}
	return names
}

func (w *world) isOnline(admin *someone) bool {
	w.t.Helper()
	var v api.Device
	if status := w.call(admin, "GET", "/api/v1/devices/press%201", nil, &v); status != 200 {
		w.t.Errorf("device: %d", status)
	}
	return v.Online
}

// code asks for something and returns the code of the problem.
func (w *world) code(who *someone, method, path string, body any) transport.Reason {
	w.t.Helper()
	response, raw := w.callRaw(who, method, path, body)
	if response.StatusCode < 300 {
		return ""
	}
	var p api.Problem
	if err := json.Unmarshal(raw, &p); err != nil {
		w.t.Errorf("%s: %v", raw, err)
	}
	return p.Code
}
