package agent

import (
	"encoding/json"
	"errors"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/transport"
)

// docs/agent.md names these files for whoever makes a backup or an image.
const (
	keyFile      = "device.key"
	identityFile = "identity.pem"
	rootFile     = "root.pem"
	claimFile    = "claim.code"
	stateSlots   = "state"

	maxFileBytes = 64 << 10
	maxGood      = 8  // last good addresses of one host
	maxGoodHosts = 32 // Access Servers and relays

	saveRest  = time.Hour         // between two writes of the slots: flash wears out
	spendUnit = 100 * time.Second // of the step budget
)

// ErrNotEnrolled: there is no identity in the state directory.
var ErrNotEnrolled = errors.New("not enrolled")

// store is the state directory (docs/agent.md). It is safe for concurrent use. Keys and certificate are files of their
// own and not in the slots: they are rarely written and must never be at risk from what is written each day.
type store struct {
	dir    string
	slots  *durable.Slots
	access []string // hosts of Access Servers, whose addresses are never dropped for those of relays

	mu      sync.Mutex // guards all below
	saved   saved
	changed bool      // saved.Good or saved.Idle, since it was written
	written time.Time // monotonic; zero: not in this run
}

// saved is the content of a slot: the last good addresses, which are hints, and
// three values that must not be lost. Slots of older versions lack some of them. One JSON object in two slots, of which
// the older one is replaced: a power cut while writing costs the newest state and not all of it.
type saved struct {
	Anchor time.Time                 `json:"anchor,omitzero"` // newest signed time, or the floor of the reset since
	Spent  time.Duration             `json:"spent,omitzero"`  // of the step budget, in ns, rounded up
	Reset  uint64                    `json:"reset,omitzero"`  // sequence of the last floor reset
	Good   map[string][]goodAddr     `json:"good,omitempty"`  // newest first
	Idle   map[netip.AddrPort]learnt `json:"idle,omitempty"`  // of servers, at most maxGoodHosts
	Join   storedJoin                `json:"join,omitzero"`
}

// storedJoin is the join-state of a key (wire §4.11): another key has none.
type storedJoin struct {
	SPKI  identity.SPKI `json:"spki"`
	State []byte        `json:"state"`
}

// goodAddr is a candidate that worked. Slots of older versions have the address alone,
// as a string.
type goodAddr struct{ transport.Known }

// UnmarshalJSON reads both forms.
func (g *goodAddr) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &g.Addr)
	}
	return json.Unmarshal(b, &g.Known)
}

// openStore opens the state directory, and creates it when it is missing. If both
// slots are damaged it starts with none of their values: signed time and addresses
// are learnt again with the next connection. A damaged slot must not keep a gateway offline in a locked cabinet, so it
// is no error.
func openStore(dir string, access []string) (*store, error) {
	if err := durable.OpenDir(dir); err != nil {
		return nil, err
	}
	slots, err := durable.OpenSlots(dir, stateSlots)
	if err != nil {
		return nil, err
	}
	s := &store{dir: dir, slots: slots}
	for _, h := range access {
		if host, _, err := transport.SplitHost(h); err == nil {
			s.access = append(s.access, host)
		}
	}
	b, err := slots.Load()
	if err == nil && len(b) > 0 {
		err = json.Unmarshal(b, &s.saved)
	}
	if err != nil {
		s.saved = saved{}
	}
	if s.saved.Good == nil {
		s.saved.Good = map[string][]goodAddr{}
	}
	return s, nil
}

// Anchor returns the stored floor of the clock, and how much of the step budget is
// spent, in this run and in those before.
func (s *store) Anchor() (floor time.Time, spent time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved.Anchor, s.saved.Spent
}

// lastGood returns the candidates of a host that worked, the last one first.
func (s *store) lastGood(host string, now time.Time) (list []transport.Candidate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.saved.Good[host] {
		list = append(list, g.Candidate(host, now))
	}
	return list
}

// onlySmall reports whether only the small form passed lately, to whatever server.
func (s *store) onlySmall(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.knownLocked() {
		if transport.SmallCounts(k.Small, now) {
			return true
		}
	}
	return false
}

// good remembers a candidate that worked. The next save stores it. It is called at every dial, so it only notes; save
// decides when flash is written.
func (s *store) good(c transport.Candidate, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.saved.Good[c.Host]
	if len(old) > 0 && old[0].Says(c, now) {
		return
	}
	found := transport.Found(s.knownLocked(), now)
	s.roomLocked(c.Host)
	list := slices.DeleteFunc(slices.Clone(old), func(g goodAddr) bool { return g.Is(c) })
	list = slices.Insert(list, 0, goodAddr{transport.NewKnown(c, found)})
	s.saved.Good[c.Host] = list[:min(len(list), maxGood)]
	s.changed = true
}

// knownLocked goes over all candidates of all hosts.
func (s *store) knownLocked() iter.Seq[*transport.Known] {
	return func(yield func(*transport.Known) bool) {
		for _, list := range s.saved.Good {
			for i := range list {
				if !yield(&list[i].Known) {
					return
				}
			}
		}
	}
}

// roomLocked makes room for host: at the limit it drops the addresses of a relay,
// which the next session finds again by name. Hosts come from pools that a server sends: without a bound one server
// could fill the flash.
func (s *store) roomLocked(host string) {
	if len(s.saved.Good) < maxGoodHosts || s.saved.Good[host] != nil {
		return
	}
	for h := range s.saved.Good {
		if !slices.Contains(s.access, h) {
			delete(s.saved.Good, h)
			return
		}
	}
	clear(s.saved.Good)
}

// learnt returns what was learnt of idle links to an address.
func (s *store) learnt(addr netip.AddrPort) learnt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved.Idle[addr].checked()
}

// learn remembers what was learnt. The next save stores it.
func (s *store) learn(addr netip.AddrPort, k learnt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.saved.Idle, addr)
	if len(s.saved.Idle) >= maxGoodHosts || s.saved.Idle == nil {
		s.saved.Idle = map[netip.AddrPort]learnt{} // each is learnt again
	}
	if k.Interval != 0 {
		s.saved.Idle[addr] = k
	}
	s.changed = true
}

// Spend stores how much of the step budget is spent in all, before it is spent
// (time §6.1). It is rounded up to units, so that flash is rarely written. Before and not after: a gateway that is
// switched off at the right moment again and again would have a budget for ever.
func (s *store) Spend(total time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if total <= s.saved.Spent {
		return nil
	}
	before := s.saved.Spent
	s.saved.Spent = roundUp(total)
	err := s.writeLocked()
	if err != nil {
		s.saved.Spent = before
	}
	return err
}

// errReplayed refuses a floor reset (time §6.4).
var errReplayed = errors.New("a reset as new as this one was taken before")

// Reset stores a lower floor, unless a reset with this sequence number or a later
// one was stored before. Written before it counts: after a power cut the reset is either taken, with its sequence, or
// not.
func (s *store) Reset(floor time.Time, sequence uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sequence <= s.saved.Reset {
		return errReplayed
	}
	before := s.saved
	s.saved.Anchor, s.saved.Reset = floor, sequence
	err := s.writeLocked()
	if err != nil {
		s.saved = before
	}
	return err
}

// joinState returns the join-state that was stored last for a key; nil: none was.
func (s *store) joinState(key identity.SPKI) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saved.Join.SPKI != key {
		return nil
	}
	return s.saved.Join.State
}

// saveJoin stores a join-state in both slots: with one of them gone bad, what is left must not look like a copy that somebody
// has made before (docs/spec/identity.md §19). It is stored when the first is written, which is what an error is about.
func (s *store) saveJoin(key identity.SPKI, state []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.saved.Join
	s.saved.Join = storedJoin{key, state}
	if err := s.writeLocked(); err != nil {
		s.saved.Join = before
		return err
	}
	_ = s.writeLocked()
	return nil
}

// save writes the values to a slot: at the first call in a run, then once a day, or
// after an hour when a good address is new. Other calls do nothing, so that a link
// that flaps does not wear out the flash. Anchor is the newest signed time, and
// spent what was spent of the step budget since. At the first call in a run at once: what was learnt after the power
// came back is worth a write.
func (s *store) save(anchor time.Time, spent time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := time.Since(s.written)
	if !s.written.IsZero() && age < saveRest || !s.changed && !s.written.IsZero() && age < anchorEvery {
		return nil
	}
	if spent = roundUp(spent); anchor.After(s.saved.Anchor) || spent > s.saved.Spent {
		s.saved.Spent = spent
	}
	s.saved.Anchor = anchor
	if err := s.writeLocked(); err != nil {
		return err
	}
	s.written, s.changed = time.Now(), false
	return nil
}

// roundUp never rounds down: a budget may be lost by rounding, and not won.
func roundUp(d time.Duration) time.Duration { return (d + spendUnit - 1) / spendUnit * spendUnit }

func (s *store) writeLocked() error {
	b, err := json.Marshal(s.saved)
	if err != nil {
		return err
	}
	return s.slots.Save(b)
}
