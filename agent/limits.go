package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
)

// Limits are what sessions may take of the gateway and of the machines (session §6, docs/agent.md §2.6).
type Limits struct {
	Streams   int     // connections of all sessions together
	PerTarget int     // connections to one machine, whatever the port
	Targets   []Limit // machines that take fewer, or more; the first one that fits counts
	Memory    int64   // bytes that the program tries to stay below; its caller sets that
}

// Limit is PerTarget for each machine of a network.
type Limit struct {
	Network netip.Prefix
	Most    int
}

const (
	// As many as fit into the memory of a router with 64 MiB beside its other work, of which one session may have its 256:
	// three quarters are for anybody.
	defaultStreams = 352
	// As many as a session may have. Many PLCs take 8 or 16; that is for their owner to say.
	defaultPerTarget = 256
	// The heap of a gateway whose streams are all full is below it, so that the collector does not work without end. What
	// the kernel counts is this and some 8 MiB of the program's own file.
	defaultMemory = 24 << 20
	leastMemory   = 16 // MB

	// otherDescriptors is what the agent opens beside streams: 16 sessions and as many that are being made, control
	// connection, names, time, status and files.
	otherDescriptors = 64
)

// DefaultLimits count where the file says nothing.
func DefaultLimits() Limits {
	return Limits{Streams: defaultStreams, PerTarget: defaultPerTarget, Memory: defaultMemory}
}

// rawLimits is the section limits as it is written.
type rawLimits struct {
	Streams   string   `yaml:"streams"`
	PerTarget string   `yaml:"per_target"`
	Targets   []string `yaml:"targets"`
	Memory    string   `yaml:"memory_mb"`
}

func (r rawLimits) check(to *Limits) error {
	megabytes := 0
	err := cmp.Or(
		value("limits.streams", r.Streams, within(1, 65535), &to.Streams),
		value("limits.per_target", r.PerTarget, within(1, 65535), &to.PerTarget),
		items("limits.targets", r.Targets, parseLimit, &to.Targets),
		value("limits.memory_mb", r.Memory, within(leastMemory, 1<<20), &megabytes),
	)
	if megabytes > 0 {
		to.Memory = int64(megabytes) << 20
	}
	return err
}

// within parses a whole number of a range.
func within(least, most int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("%.64q: want a number, %d to %d", s, least, most)
		}
		return n, nil
	}
}

// parseLimit reads ADDRESS=N or CIDR=N.
func parseLimit(s string) (l Limit, err error) {
	network, number, ok := strings.Cut(s, "=")
	if !ok {
		return l, fmt.Errorf("%.64q: want ADDRESS=NUMBER or CIDR=NUMBER", s)
	}
	if l.Network, err = parseNetwork(strings.TrimSpace(network)); err != nil {
		return l, fmt.Errorf("%.64q: %w", s, err)
	}
	l.Most, err = within(1, 65535)(strings.TrimSpace(number))
	return l, err
}

// of is how many connections a machine gets.
func (l Limits) of(a netip.Addr) int {
	for _, t := range l.Targets {
		if t.Network.Contains(a) {
			return t.Most
		}
	}
	return l.PerTarget
}

// streams is how many streams there may be with so many descriptors (0: as many as one likes), and why it is not what was
// asked for. A stream that finds none would fail as if the machine were to blame, and so would the next control
// connection. It is pure.
func (l Limits) streams(descriptors int) (most int, why error) {
	if descriptors == 0 || l.Streams+otherDescriptors <= descriptors {
		return l.Streams, nil
	}
	most = min(l.Streams, max(descriptors-otherDescriptors, descriptors/4, 1))
	if most == l.Streams {
		return most, nil
	}
	return most, fmt.Errorf("the system gives this program %d, so that sessions have %d connections together and not %d; "+
		"raise the limit (LimitNOFILE of systemd, ulimit -n) to %d", descriptors, most, l.Streams, l.Streams+otherDescriptors)
}

// connections counts those to each machine, from before the dial. Safe for concurrent use.
type connections struct {
	mu   sync.Mutex // guards open
	open map[netip.Addr]int
}

// take counts one more, unless there are most already.
func (c *connections) take(a netip.Addr, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[a] >= most {
		return false
	}
	if c.open == nil {
		c.open = map[netip.Addr]int{}
	}
	c.open[a]++
	return true
}

func (c *connections) give(a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[a]--; c.open[a] <= 0 {
		delete(c.open, a) // or a sweep over a network would leave them all
	}
}
