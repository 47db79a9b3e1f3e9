package manager

import (
	"fmt"
	"sync"
	"time"
)

// sayAgain is how often notes of one kind are said. A browser, or a tool that polls, tries ten times a second: of 60
// connections while descriptors were short, 139 equal lines remained, and the loss of the session was not among what
// the technician still saw.
const (
	sayAgain = time.Minute
	maxKinds = 256 // what is refused may be another address each time
)

// hush keeps notes of one kind to one a minute, and counts the rest. The zero value works; it is safe for concurrent use.
type hush struct {
	mu    sync.Mutex // guards kinds
	kinds map[string]*hushed
}

// hushed is one kind: when it was said last, by the monotonic clock, and how often it happened since.
type hushed struct {
	said  time.Time
	since int
}

// due reports whether a note of this kind is to be said now, and with which words behind it.
func (h *hush) due(kind string, now time.Time) (say bool, behind string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.kinds[kind]
	switch {
	case k == nil:
		h.makeRoom(now)
		h.kinds[kind] = &hushed{said: now}
		return true, ""
	case now.Sub(k.said) < sayAgain:
		k.since++
		return false, ""
	}
	if k.since > 0 {
		behind = fmt.Sprintf(" (%d more since the last line)", k.since)
	}
	*k = hushed{said: now}
	return true, behind
}

// makeRoom forgets kinds that would be said at once anyway, or all when there are too many.
func (h *hush) makeRoom(now time.Time) {
	if len(h.kinds) >= maxKinds {
		for kind, k := range h.kinds {
			if now.Sub(k.said) >= sayAgain {
				delete(h.kinds, kind)
			}
		}
	}
	if h.kinds == nil || len(h.kinds) >= maxKinds {
		h.kinds = make(map[string]*hushed)
	}
}
