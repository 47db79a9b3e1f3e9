package agent

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hawser/internal/durable"
	"hawser/transport"
)

const (
	keyFile      = "device.key"
	identityFile = "identity.pem"
	rootFile     = "root.pem"
	stateSlots   = "state"

	maxFileBytes = 64 << 10
	maxGood      = 8  // last good addresses of one host
	maxGoodHosts = 32 // Access Servers and relays

	saveRest  = time.Hour         // between two writes of the slots: flash wears out
	spendUnit = 100 * time.Second // of the step budget
)

// ErrNotEnrolled: there is no identity in the state directory.
var ErrNotEnrolled = errors.New("not enrolled")

// store is the state directory (docs/agent.md). It is safe for concurrent use.
type store struct {
	dir    string
	slots  *durable.Slots
	access []string // hosts whose good addresses are never dropped for others

	mu      sync.Mutex // guards all below
	saved   saved
	changed bool      // saved.Good, since it was written
	written time.Time // monotonic; zero: not in this run
}

// saved is what the two slots hold: hints and three facts, the anchor, what SNTP
// has spent since, and the last floor reset. Slots of older versions lack some.
type saved struct {
	Anchor time.Time                   `json:"anchor,omitzero"` // newest signed time, or the floor of the reset since
	Spent  time.Duration               `json:"spent,omitzero"`  // of the step budget, in ns, rounded up
	Reset  uint64                      `json:"reset,omitzero"`  // sequence of the last floor reset
	Good   map[string][]netip.AddrPort `json:"good,omitempty"`  // newest first
}

// openStore opens the state directory, and makes it when it is missing. Damaged
// slots start empty: all they hold comes again.
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
		s.saved.Good = map[string][]netip.AddrPort{}
	}
	return s, nil
}

func (s *store) anchor() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved.Anchor
}

// lastGood lists the addresses of a host that worked, newest first.
func (s *store) lastGood(host string) []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.saved.Good[host])
}

// good remembers an address that worked; save stores it.
func (s *store) good(c transport.Candidate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.saved.Good[c.Host]
	if len(old) > 0 && old[0] == c.Addr {
		return
	}
	s.roomLocked(c.Host)
	list := slices.DeleteFunc(slices.Clone(old), func(a netip.AddrPort) bool { return a == c.Addr })
	list = slices.Insert(list, 0, c.Addr)
	s.saved.Good[c.Host] = list[:min(len(list), maxGood)]
	s.changed = true
}

// roomLocked drops the addresses of some relay when there are too many hosts:
// the next session finds them again by name.
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

// spent is how much of the step budget is gone: of this run, and of those before.
func (s *store) spent() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved.Spent
}

// spend stores that so much of the step budget is gone in all, before it is
// (time §6.1). Units keep that rare: an honest SNTP makes hardly any steps.
func (s *store) spend(total time.Duration) error {
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

// save writes the slots: the first time in a run, then once a day, or after an
// hour when a good address is new. A link that flaps wears no flash out. The
// anchor is signed time, and spent what is gone of the step budget since.
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

func roundUp(d time.Duration) time.Duration { return (d + spendUnit - 1) / spendUnit * spendUnit }

func (s *store) writeLocked() error {
	b, err := json.Marshal(s.saved)
	if err != nil {
		return err
	}
	return s.slots.Save(b)
}
