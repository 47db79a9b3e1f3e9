package gate

import (
	"container/heap"
	"net/netip"
	"slices"
	"time"
)

// patience is usual: a handshake over a satellite takes less.
const patience = 2 * time.Second

// Limits are how many places there are. A source is one IPv4 address, or in IPv6 a /64: a subscriber has all of its
// addresses. A net is a /56, which some providers give to a subscriber, and a site a /48, which a customer gets who asks.
type Limits struct {
	All    int // for everybody
	Source int // for one source
	Net    int // for one net of IPv6
	Site   int // for one site of IPv6
	Queue  int // who may wait for one; a source, net and site have the same shares of it
	// Patience is for how long a client may make no progress before one of a source that has no more may take its place.
	// Zero: it may at once, where an honest client is done in no time.
	Patience time.Duration
}

// minPlaces are left however few descriptors there are: fewer would shut a site out whose gateways start together.
const minPlaces = 16

// Places returns the limits of so many places, but at most one in share of a process's descriptors; the rest of these is
// for the clients that have proven who they are. No descriptors means that their number is not known.
//
// A source has half of the places, a net three quarters, and a site seven eighths. Less would not protect others better,
// because who has most gives way to them in any case, and it would slow down those who share an address: behind a load
// balancer, or the NAT of a mobile network, that may be all gateways.
func Places(all, descriptors, share int) Limits {
	if descriptors > 0 {
		all = min(all, max(descriptors/share, minPlaces))
	}
	queue := 2 * all
	if descriptors > 0 {
		queue = min(queue, descriptors/32)
	}
	few := min(all, minPlaces)
	return Limits{
		All: all, Source: max(all/2, few), Net: max(all*3/4, few), Site: max(all*7/8, few),
		Queue: queue, Patience: patience,
	}
}

// levels are how wide the prefixes are by which somebody is counted: the source first.
const levels = 3

// of returns the limit of a level.
func (l Limits) of(level int) int { return [levels]int{l.Source, l.Net, l.Site}[level] }

// A book says who has which place. Its methods are told the time, and do nothing but change the book.
type book struct {
	limits Limits
	all    int
	groups map[netip.Prefix]*group
	ranks  ranks
}

// A group is those of one prefix who have places. The widest group of an address is what is weighed against that of
// another: an IPv4 address, or a site of IPv6.
type group struct {
	prefix netip.Prefix
	places int
	seats  []*seat // of a widest one; who has made no progress for longest comes first
	rank   int     // of a widest one: its index in ranks
}

// A seat is one place that is taken.
type seat struct {
	groups []*group  // the source first, and the widest last; nil: it was left
	heard  time.Time // its last progress
	cut    func()    // ends its connection; the book never calls it
}

func (s *seat) widest() *group { return s.groups[len(s.groups)-1] }

func newBook(l Limits) *book { return &book{limits: l, groups: make(map[netip.Prefix]*group)} }

// enter gives a place to a newcomer, and says who has to go for it, if anybody. Without a place for it, taken is nil.
func (b *book) enter(from []netip.Prefix, cut func(), now time.Time) (taken, goes *seat) {
	own := b.find(from)
	goes, full := b.decide(own, now)
	if full != nil && goes == nil {
		return nil, nil
	}
	if goes != nil {
		b.leave(goes)
	}
	return b.seat(own, cut, now), goes
}

// join gives a newcomer a place that is free, and takes none from anybody: then it returns nil, and whose limit is reached.
// That is the zero Prefix when all places are taken.
func (b *book) join(from []netip.Prefix, cut func(), now time.Time) (taken *seat, full netip.Prefix) {
	own := b.find(from)
	if _, limit := b.decide(own, now); limit != nil {
		return nil, limit.prefix
	}
	return b.seat(own, cut, now), full
}

// find returns the groups of an address; one without places is not in the book.
func (b *book) find(from []netip.Prefix) []*group {
	own := make([]*group, len(from))
	for i, prefix := range from {
		if own[i] = b.groups[prefix]; own[i] == nil {
			own[i] = &group{prefix: prefix}
		}
	}
	return own
}

func (b *book) seat(own []*group, cut func(), now time.Time) *seat {
	taken := &seat{groups: own, heard: now, cut: cut}
	b.all++
	for _, g := range own {
		g.places++
		b.groups[g.prefix] = g
	}
	widest := taken.widest()
	if widest.seats = append(widest.seats, taken); len(widest.seats) == 1 {
		heap.Push(&b.ranks, widest)
	} else {
		heap.Fix(&b.ranks, widest.rank)
	}
	return taken
}

// decide says whose limit is reached, if one is, and whose place is taken then. Of its own share a source can only lose
// what makes no progress: else a source that has many clients would finish nothing. When all places are taken, a source
// that has fewer than another may take from it at once.
func (b *book) decide(own []*group, now time.Time) (goes *seat, full *group) {
	widest := own[len(own)-1]
	for level, g := range own {
		if g.places >= b.limits.of(level) {
			first := slices.IndexFunc(widest.seats, func(s *seat) bool { return s.groups[level] == g })
			return b.stuck(widest.seats, first, now), g
		}
	}
	switch {
	case b.all < b.limits.All:
		return nil, nil
	case b.all == 0:
		return nil, new(group)
	}
	heaviest := b.ranks[0]
	if heaviest.places > widest.places+1 {
		return heaviest.worst(), new(group)
	}
	return b.stuck(heaviest.seats, 0, now), new(group)
}

// worst returns who has to go of the most that a group has: of its heaviest net, and of the heaviest source in that, who
// has made no progress for longest. So who shares a provider with a crowd keeps his place.
func (g *group) worst() *seat {
	worst := g.seats[0]
	if len(worst.groups) == 1 {
		return worst
	}
	for _, s := range g.seats[1:] {
		if s.heavier(worst) {
			worst = s
		}
	}
	return worst
}

// heavier compares the nets of two of one site, and then their sources.
func (s *seat) heavier(o *seat) bool {
	for level := len(s.groups) - 2; level >= 0; level-- {
		if more := s.groups[level].places - o.groups[level].places; more != 0 {
			return more > 0
		}
	}
	return false
}

// stuck returns one of some seats if there is that one, and it has made no progress for long enough.
func (b *book) stuck(seats []*seat, i int, now time.Time) *seat {
	if i < 0 || i >= len(seats) || now.Sub(seats[i].heard) < b.limits.Patience {
		return nil
	}
	return seats[i]
}

// progress notes that a client has got further.
func (b *book) progress(s *seat, now time.Time) {
	if s.groups == nil {
		return
	}
	s.heard = now
	widest := s.widest()
	widest.seats = append(slices.DeleteFunc(widest.seats, func(o *seat) bool { return o == s }), s)
	heap.Fix(&b.ranks, widest.rank)
}

// leave frees a place, unless that was done before.
func (b *book) leave(s *seat) (freed bool) {
	if s.groups == nil {
		return false
	}
	widest := s.widest()
	b.all--
	for _, g := range s.groups {
		if g.places--; g.places == 0 {
			delete(b.groups, g.prefix) // or a sweep over a net would leave them all
		}
	}
	s.groups = nil
	widest.seats = slices.DeleteFunc(widest.seats, func(o *seat) bool { return o == s })
	if widest.places == 0 {
		heap.Remove(&b.ranks, widest.rank)
		return true
	}
	heap.Fix(&b.ranks, widest.rank)
	return true
}

// Source returns what counts as one client: an IPv4 address, or in IPv6 a /64, of which a subscriber could use a new
// address for each attempt.
func Source(a netip.Addr) netip.Prefix { return prefixes(a)[0] }

// prefixes returns by what an address is counted, the source first.
func prefixes(a netip.Addr) []netip.Prefix {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
	}
	list := make([]netip.Prefix, 0, levels)
	for _, bits := range [levels]int{64, 56, 48} {
		list = append(list, netip.PrefixFrom(a, bits).Masked())
	}
	return list
}

// ranks is a heap: the group with the most places is the first, and of several the one whose first seat is stuck longest.
type ranks []*group

func (r ranks) Len() int { return len(r) }

func (r ranks) Less(i, j int) bool {
	if r[i].places != r[j].places {
		return r[i].places > r[j].places
	}
	return len(r[i].seats) > 0 && len(r[j].seats) > 0 && r[i].seats[0].heard.Before(r[j].seats[0].heard)
}

func (r ranks) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	r[i].rank, r[j].rank = i, j
}

func (r *ranks) Push(s any) {
	s.(*group).rank = len(*r)
	*r = append(*r, s.(*group))
}

func (r *ranks) Pop() any {
	last := len(*r) - 1
	s := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	return s
}
