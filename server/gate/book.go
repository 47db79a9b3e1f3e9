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
// addresses. A net is a /56, which some providers give to a subscriber.
type Limits struct {
	All    int // for everybody
	Source int // for one source
	Net    int // for one net of IPv6
	Queue  int // who may wait for one, half of them of one source
	// Patience is for how long a client may make no progress before one of a source that has no more may take its place.
	// Zero: it may at once, where an honest client is done in no time.
	Patience time.Duration
}

// minPlaces are left however few descriptors there are: fewer would shut a site out whose gateways start together.
const minPlaces = 16

// Places returns the limits of so many places, but at most one in share of a process's descriptors; the rest of these is
// for the clients that have proven who they are. No descriptors means that their number is not known.
//
// A source has half of the places, and a net three quarters. Less would not protect others better, because who has most
// gives way to them in any case, and it would slow down those who share an address: behind a load balancer, or the NAT
// of a mobile network, that may be all gateways.
func Places(all, descriptors, share int) Limits {
	if descriptors > 0 {
		all = min(all, max(descriptors/share, minPlaces))
	}
	queue := 2 * all
	if descriptors > 0 {
		queue = min(queue, descriptors/32)
	}
	few := min(all, minPlaces)
	return Limits{All: all, Source: max(all/2, few), Net: max(all*3/4, few), Queue: queue, Patience: patience}
}

// A book says who has which place. Its methods are told the time, and do nothing but change the book.
type book struct {
	limits Limits
	all    int
	sites  map[netip.Prefix]*site
	ranks  ranks
}

// A site is what is weighed: an IPv4 address, or a net of IPv6.
type site struct {
	prefix netip.Prefix
	seats  []*seat // who has made no progress for longest comes first
	rank   int     // its index in ranks
}

// A seat is one place that is taken.
type seat struct {
	site   *site // nil: it was left
	source netip.Prefix
	heard  time.Time // its last progress
	cut    func()    // ends its connection; the book never calls it
}

func newBook(l Limits) *book { return &book{limits: l, sites: make(map[netip.Prefix]*site)} }

// enter gives a place to a newcomer, and says who has to go for it, if anybody. Without a place for it, taken is nil.
func (b *book) enter(from netip.Addr, cut func(), now time.Time) (taken, goes *seat) {
	source, net := prefixes(from)
	s := b.site(net)
	goes, full := b.decide(s, source, now)
	if full && goes == nil {
		return nil, nil
	}
	if goes != nil {
		b.leave(goes)
	}
	return b.seat(s, source, cut, now), goes
}

// join gives a newcomer a place that is free, and takes none from anybody: then it returns nil.
func (b *book) join(from netip.Addr, cut func(), now time.Time) *seat {
	source, net := prefixes(from)
	s := b.site(net)
	if _, full := b.decide(s, source, now); full {
		return nil
	}
	return b.seat(s, source, cut, now)
}

// site returns who has an address; one without places is not in the book.
func (b *book) site(net netip.Prefix) *site {
	if s := b.sites[net]; s != nil {
		return s
	}
	return &site{prefix: net}
}

func (b *book) seat(s *site, source netip.Prefix, cut func(), now time.Time) *seat {
	taken := &seat{site: s, source: source, heard: now, cut: cut}
	b.all++
	s.seats = append(s.seats, taken)
	if len(s.seats) == 1 {
		b.sites[s.prefix] = s
		heap.Push(&b.ranks, s)
	} else {
		heap.Fix(&b.ranks, s.rank)
	}
	return taken
}

// decide says whether a limit is reached, and whose place is taken then. Of its own share a source can only lose what
// makes no progress: else a source that has many clients would finish nothing. When all places are taken, a source that
// has fewer than another may take from it at once.
func (b *book) decide(own *site, source netip.Prefix, now time.Time) (goes *seat, full bool) {
	same := func(s *seat) bool { return s.source == source }
	var mine []*seat
	for _, s := range own.seats {
		if same(s) {
			mine = append(mine, s)
		}
	}
	switch {
	case len(mine) >= b.limits.Source:
		return b.stuck(mine, now), true
	case source != own.prefix && len(own.seats) >= b.limits.Net:
		return b.stuck(own.seats, now), true
	case b.all < b.limits.All:
		return nil, false
	case b.all == 0:
		return nil, true
	}
	heaviest := b.ranks[0]
	if len(heaviest.seats) > len(own.seats)+1 {
		return heaviest.seats[0], true
	}
	return b.stuck(heaviest.seats, now), true
}

// stuck returns the first of some seats if it has made no progress for long enough.
func (b *book) stuck(seats []*seat, now time.Time) *seat {
	if len(seats) == 0 || now.Sub(seats[0].heard) < b.limits.Patience {
		return nil
	}
	return seats[0]
}

// progress notes that a client has got further.
func (b *book) progress(s *seat, now time.Time) {
	if s.site == nil {
		return
	}
	s.heard = now
	s.site.seats = append(slices.DeleteFunc(s.site.seats, func(o *seat) bool { return o == s }), s)
	heap.Fix(&b.ranks, s.site.rank)
}

// leave frees a place, unless that was done before.
func (b *book) leave(s *seat) (freed bool) {
	site := s.site
	if site == nil {
		return false
	}
	s.site = nil
	b.all--
	site.seats = slices.DeleteFunc(site.seats, func(o *seat) bool { return o == s })
	if len(site.seats) == 0 {
		heap.Remove(&b.ranks, site.rank)
		delete(b.sites, site.prefix)
		return true
	}
	heap.Fix(&b.ranks, site.rank)
	return true
}

// Source returns what counts as one client: an IPv4 address, or in IPv6 a /64, of which a subscriber could use a new
// address for each attempt.
func Source(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// prefixes returns the source of an address, and what it is weighed with.
func prefixes(a netip.Addr) (source, net netip.Prefix) {
	if source = Source(a); source.Bits() != 64 {
		return source, source
	}
	return source, netip.PrefixFrom(source.Addr(), 56).Masked()
}

// ranks is a heap: the site with the most seats is the first, and of several the one whose first seat is stuck longest.
type ranks []*site

func (r ranks) Len() int { return len(r) }

func (r ranks) Less(i, j int) bool {
	if len(r[i].seats) != len(r[j].seats) {
		return len(r[i].seats) > len(r[j].seats)
	}
	return len(r[i].seats) > 0 && r[i].seats[0].heard.Before(r[j].seats[0].heard)
}

func (r ranks) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	r[i].rank, r[j].rank = i, j
}

func (r *ranks) Push(s any) {
	s.(*site).rank = len(*r)
	*r = append(*r, s.(*site))
}

func (r *ranks) Pop() any {
	last := len(*r) - 1
	s := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	return s
}
