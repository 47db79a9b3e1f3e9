package probe

import (
	"net/netip"
	"slices"
	"time"
)

// Cache limits, names §6.
const (
	maxNames = 64
	minTTL   = 60 * time.Second
	maxTTL   = time.Hour
	// A failure is kept too: without that, a dial loop asks a dead resolver as fast as it fails. Short at first,
	// because most are over when the link is up.
	minFailure = 5 * time.Second
	maxFailure = 5 * time.Minute
)

// result is what a caller of Resolve gets: addrs, or err.
type result struct {
	addrs []netip.Addr
	ttl   time.Duration
	err   error
}

// nameCache keeps results by canonical name. The zero value is empty. Ages are in monotonic time, so that setting the
// clock expires nothing. A gateway knows a handful of hosts; a full cache means that something asks for names that
// others choose.
type nameCache struct {
	entries map[string]cacheEntry
}

type cacheEntry struct {
	result
	until    time.Time
	servers  []netip.AddrPort // that gave the failure: other servers are asked at once
	failures uint             // in a row
}

// get returns the result for name unless it has expired.
func (c *nameCache) get(name string, servers []netip.AddrPort, now time.Time) (result, bool) {
	e, ok := c.entries[name]
	if !ok || !now.Before(e.until) || e.err != nil && !slices.Equal(e.servers, servers) {
		return result{}, false
	}
	return e.result, true
}

// put keeps res. A full cache drops the result that expires first.
func (c *nameCache) put(name string, servers []netip.AddrPort, res result, now time.Time) {
	old, known := c.entries[name]
	if !known && len(c.entries) >= maxNames {
		delete(c.entries, c.oldest())
	}
	if c.entries == nil {
		c.entries = make(map[string]cacheEntry)
	}
	e := cacheEntry{result: res, servers: servers}
	if res.err != nil {
		e.failures = old.failures + 1
		e.until = now.Add(failureTime(e.failures))
	} else {
		e.until = now.Add(min(max(res.ttl, minTTL), maxTTL))
	}
	c.entries[name] = e
}

// failureTime is how long the n-th failure in a row is kept.
func failureTime(n uint) time.Duration {
	return min(minFailure<<min(n-1, 10), maxFailure)
}

func (c *nameCache) oldest() (name string) {
	var first time.Time
	for n, e := range c.entries {
		if name == "" || e.until.Before(first) {
			name, first = n, e.until
		}
	}
	return name
}

func (c *nameCache) forgetFailures() {
	for name, e := range c.entries {
		if e.err != nil {
			delete(c.entries, name)
		}
	}
}

// cached returns the result that is kept for name, if any.
func (r *Resolver) cached(name string, servers []netip.AddrPort) ([]netip.Addr, error, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	res, hit := r.cache.get(name, servers, time.Now())
	return slices.Clone(res.addrs), res.err, hit
}

// keep puts res into the cache and returns it.
func (r *Resolver) keep(name string, servers []netip.AddrPort, res result) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cache.put(name, servers, res, time.Now())
	return slices.Clone(res.addrs), res.err
}
