//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// resolvers makes the gateway ask these hosts for names, for the rest of the test; none leaves it without any.
func resolvers(t *testing.T, hosts ...string) {
	t.Helper()
	var addrs []netip.Addr
	for _, host := range hosts {
		addrs = append(addrs, describe(t).ways(host)[0])
	}
	nameservers(t, addrs...)
}

// nameservers is resolvers by their addresses.
func nameservers(t *testing.T, addrs ...netip.Addr) {
	t.Helper()
	const file = "/etc/netns/device/resolv.conf" // ip-netns(8)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var conf strings.Builder
	for _, addr := range addrs {
		fmt.Fprintln(&conf, "nameserver", addr)
	}
	if err := os.WriteFile(file, []byte(conf.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, before, 0o644); err != nil {
			t.Error(err)
		}
	})
}

// Real resolvers that answer in one way only, or not at all while another one does.
func TestNamesResolveWithAnyServerThatAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		rules  []string
		asked  []string
		within time.Duration
	}{
		{"TCP only", []string{"clear"}, []string{"dns-tcp"}, 3 * time.Second},
		{"TCP only, and UDP dropped", []string{"drop", "udp", "53"}, []string{"dns-tcp"}, 3 * time.Second},
		{"a server that refuses, and another", []string{"clear"}, []string{"dns-lame", "dns"}, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Attr("id", "D1")
			firewall(t, tt.rules...)
			resolvers(t, tt.asked...)
			d, slowest, watch := describe(t), time.Duration(0), watchLab()
			for i, a := range ask(t, "device", "resolve", reference...) {
				// One family may be missing: when the other one is there it has half a second left (names §2).
				want := d.ways(d.Names[reference[i]])
				foreign := slices.ContainsFunc(a.Addrs, func(got netip.Addr) bool { return !slices.Contains(want, got) })
				if a.Error != "" || len(a.Addrs) == 0 || foreign {
					t.Errorf("%s: %v, %q; want %v", reference[i], a.Addrs, a.Error, want)
				}
				watch.Within(t, reference[i], a.Took, tt.within)
				slowest = max(slowest, a.Took)
			}
			t.Attr("count", fmt.Sprintf("slowest of 12 names in ms, %s=%d", tt.name, slowest.Milliseconds()))
		})
	}
	resolvers(t, "dns-lame")
	if a := ask(t, "device", "resolve", reference[0])[0]; a.Error != "refused" {
		t.Errorf("with the server alone that refuses: %q, want refused", a.Error)
	}
}

// The agent itself, behind resolvers that lie or say nothing: it goes on by the address that worked before, or by one that its
// configuration names.
func TestAgentIsOnlineWhateverResolversSay(t *testing.T) {
	const joins = 1800 * time.Millisecond // wire §8
	g := newRig(t).addDevice("press-4")
	g.enroll()
	config := filepath.Join(g.data, "agent.yaml")
	byName, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	literal := describe(t).ways("access1")[0].String()
	byBoth := strings.Replace(string(byName), "["+accessName+"]", "["+accessName+", "+literal+"]", 1)
	for _, tt := range []struct {
		id, name string
		asked    []string
		rules    []string
		within   time.Duration
	}{
		{"D3", "hijacked", []string{"dns-hijack"}, []string{"clear"}, 5 * time.Second},
		{"D3", "refused", []string{"dns-lame"}, []string{"clear"}, 5 * time.Second},
		{"D6", "no resolver", nil, []string{"clear"}, joins},
		{"D6", "silent", []string{"dns"}, []string{"drop", "udp", "53", "drop", "tcp", "53"}, joins + time.Second},
	} {
		for known, text := range map[string]string{"last good": string(byName), "configured": byBoth} {
			t.Run(tt.name+", by the "+known+" address", func(t *testing.T) {
				t.Attr("id", tt.id)
				if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				g.forget()
				if known == "last good" {
					p, _ := g.run(t)
					p.stop()
				}
				resolvers(t, tt.asked...)
				firewall(t, tt.rules...)
				watch := watchLab()
				p, took := g.run(t)
				watch.Within(t, "online", took, tt.within)
				p.stop()
				t.Attr("count", fmt.Sprintf("ms until online, %s, %s address=%d", tt.name, known, took.Milliseconds()))
			})
		}
	}
}
