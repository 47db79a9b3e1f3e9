package gate

import (
	"container/list"
	"net/netip"
	"slices"
)

// A line is who waits for a place: who came first is first. Its methods do nothing but change it.
type line struct {
	waiting list.List            // of *waiter
	counts  map[netip.Prefix]int // how many wait of each prefix
}

// waiter is a connection that waits for a place.
type waiter struct {
	from   []netip.Prefix
	cut    func()
	placed chan *Place   // of one; nil: does not wait
	at     *list.Element // where it stands; nil: not in the line
}

// join puts a waiter at the end, unless too many wait, or too many of its own: these have the same shares as of places.
func (l *line) join(w *waiter, limits Limits) bool {
	if l.waiting.Len() >= limits.Queue {
		return false
	}
	for level, prefix := range w.from {
		if l.counts[prefix] >= limits.waiting(level) {
			return false
		}
	}
	if l.counts == nil {
		l.counts = make(map[netip.Prefix]int)
	}
	for _, prefix := range w.from {
		l.counts[prefix]++
	}
	w.at = l.waiting.PushBack(w)
	return true
}

// waiting is how many may wait of one prefix.
func (l Limits) waiting(level int) int {
	return max(l.Queue*[levels]int{4, 6, 7}[level]/8, 1)
}

// leave takes a waiter out of the line, wherever it stands.
func (l *line) leave(w *waiter) {
	if w.at == nil {
		return
	}
	l.waiting.Remove(w.at)
	w.at = nil
	for _, prefix := range w.from {
		if l.counts[prefix]--; l.counts[prefix] == 0 {
			delete(l.counts, prefix)
		}
	}
}

// next takes the first one out of the line whom join gives a place. join is asked for one of those only who share a limit
// that is reached: the many that wait of one source are passed by.
func (l *line) next(join func(*waiter) (taken *seat, full netip.Prefix)) (*waiter, *seat) {
	var full []netip.Prefix
	for at := l.waiting.Front(); at != nil; at = at.Next() {
		w := at.Value.(*waiter)
		if slices.ContainsFunc(w.from, func(p netip.Prefix) bool { return slices.Contains(full, p) }) {
			continue
		}
		taken, limit := join(w)
		if taken != nil {
			l.leave(w)
			return w, taken
		}
		if limit == (netip.Prefix{}) {
			break // for everybody
		}
		full = append(full, limit)
	}
	return nil, nil
}
