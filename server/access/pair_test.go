package access

import (
	"context"
	"encoding/json"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"

	"hawser/transport"
)

// cord is what connects a node with the store and the bus that it shares. It
// can be cut.
type cord struct {
	Store
	bus Bus

	mu  sync.Mutex
	cut bool
	h   BusHandler
}

func (c *cord) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

func (c *cord) set(cut bool) {
	c.mu.Lock()
	c.cut = cut
	missed := c.h.Missed
	c.mu.Unlock()
	if !cut {
		missed()
	}
}

func (c *cord) err() error {
	if c.isCut() {
		return ErrAway
	}
	return nil
}

func (c *cord) Get(ctx context.Context, bucket, key string) (Entry, error) {
	if err := c.err(); err != nil {
		return Entry{}, err
	}
	return c.Store.Get(ctx, bucket, key)
}

func (c *cord) Create(ctx context.Context, bucket, key string, value []byte) (uint64, error) {
	if err := c.err(); err != nil {
		return 0, err
	}
	return c.Store.Create(ctx, bucket, key, value)
}

func (c *cord) Update(ctx context.Context, bucket, key string, value []byte, revision uint64) (uint64, error) {
	if err := c.err(); err != nil {
		return 0, err
	}
	return c.Store.Update(ctx, bucket, key, value, revision)
}

func (c *cord) Delete(ctx context.Context, bucket, key string, revision uint64) error {
	if err := c.err(); err != nil {
		return err
	}
	return c.Store.Delete(ctx, bucket, key, revision)
}

func (c *cord) List(ctx context.Context, bucket, prefix string) ([]Entry, error) {
	if err := c.err(); err != nil {
		return nil, err
	}
	return c.Store.List(ctx, bucket, prefix)
}

func (c *cord) Append(ctx context.Context, node, domain string, record []byte) error {
	if err := c.err(); err != nil {
		return err
	}
	return c.Store.Append(ctx, node, domain, record)
}

func (c *cord) Attend(node string, h BusHandler) (func(), error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.h = h
	return c.bus.Attend(node, BusHandler{
		Hear: func(m []byte) {
			if !c.isCut() {
				h.Hear(m)
			}
		},
		Answer: func(ctx context.Context, q []byte) []byte {
			if c.isCut() {
				return nil
			}
			return h.Answer(ctx, q)
		},
		Missed: h.Missed,
	})
}

func (c *cord) Publish(ctx context.Context, m []byte) error {
	if err := c.err(); err != nil {
		return err
	}
	return c.bus.Publish(ctx, m)
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
	store, bus := NewMemory(), NewBus()
	p := pairOver(t, &cord{Store: store, bus: bus}, &cord{Store: store, bus: bus})
	synctest.Wait()
	return p
}

// pairOver makes a pair whose nodes have a cord each; they may not know of each
// other yet.
func pairOver(t testing.TB, first, second *cord) *pair {
	w := newWorld(t, first, func(c *Config) { c.Bus = first })
	s := &stage{world: w, admin: w.login()}
	s.device = w.addDevice(s.admin, "press 1")
	s.relay = w.control(w.enrolRelay(), relayHello("ab12"))
	s.runtime = w.control(s.device, hello("01"))
	p := &pair{stage: s, cord: first, secondCord: second}
	other := *w
	p.second = &other
	p.second.addr = netip.MustParseAddr("192.0.2.2")
	p.second.cfg = p.second.config("a2")
	p.second.cfg.Store, p.second.cfg.Bus = second, second
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
	var v deviceView
	if status := w.call(admin, "GET", "/api/v1/devices/press%201", nil, &v); status != 200 {
		w.t.Errorf("device: %d", status)
	}
	return v.Online
}

// code asks for something and returns the code of the problem.
func (w *world) code(who *someone, method, path string, body any) transport.Reason {
	w.t.Helper()
	_, raw := w.callRaw(who, method, path, must(json.Marshal(body)))
	var p problem
	if err := json.Unmarshal(raw, &p); err != nil {
		w.t.Errorf("%s: %v", raw, err)
	}
	return p.Code
}
