package access

import (
	"slices"
	"strings"
	"sync"

	"hawser/identity"
)

// maxDeviceSessions bounds the open sessions of one device. More can only be
// leftovers whose end was never reported, so the oldest give way.
const maxDeviceSessions = 64

// sessions knows the open sessions; the store has them too. The zero value works.
type sessions struct {
	mu   sync.Mutex // guards open
	open map[string]sessionRecord
}

// add notes an open session and returns those that must give way to it.
func (s *sessions) add(r sessionRecord) (tooOld []sessionRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[string]sessionRecord)
	}
	s.open[r.Session] = r
	same := s.ofLocked(r.Device)
	return same[:max(len(same)-maxDeviceSessions, 0)]
}

func (s *sessions) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

// of returns the open sessions of a device, oldest first.
func (s *sessions) of(device identity.UID) []sessionRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ofLocked(device)
}

func (s *sessions) ofLocked(device identity.UID) []sessionRecord {
	var list []sessionRecord
	for _, r := range s.open {
		if r.Device == device {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b sessionRecord) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.Session, b.Session)
	})
	return list
}

// carriedBy returns how many open sessions each relay has.
func (s *sessions) carriedBy() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := make(map[string]int)
	for _, r := range s.open {
		count[r.Relay]++
	}
	return count
}
