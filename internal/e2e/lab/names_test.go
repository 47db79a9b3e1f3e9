//go:build linux

package lab

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// reference are the names of the infrastructure whose model Hawser follows.
var reference = []string{
	"ccas1.keb.de", "ccas2.keb.de",
	"ubiquityrs1.asem.it", "ubiquityrs2.asem.it", "ubiquityrs3.asem.it", "ubiquityrs4.asem.it",
	"ubiquityrs5.asem.it", "ubiquityrs6.asem.it", "ubiquityrs7.asem.it",
	"combivisconnect.com", "webapi.combivisconnect.com", "help.combivisconnect.com",
}

func TestReferenceNamesLeadToHostsOfTheirOwn(t *testing.T) {
	d := describe(t)
	hosts := map[string]bool{}
	for _, name := range reference {
		hosts[d.Names[name]] = true
	}
	if want := 9; len(hosts) != want || hosts[""] {
		t.Errorf("lead to %v, want %d hosts", slices.Sorted(maps.Keys(hosts)), want)
	}
}

// TestNamesResolve has a client on the gateway, and the technician's, look up every name over the one way that is open.
func TestNamesResolve(t *testing.T) {
	for _, tt := range []struct {
		name, host string
		rules      []string
		within     time.Duration
	}{
		{"over whatever answers", "device", []string{"clear"}, time.Second},
		{"for the technician", "tech", []string{"clear"}, time.Second},
		{"over UDP alone", "device", []string{"drop", "tcp", "53"}, time.Second},
		{"over TCP alone", "device", []string{"drop", "udp", "53"}, 3 * time.Second},
		{"over TCP alone, when UDP is refused", "device", []string{"reject", "udp", "53"}, 3 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.within > time.Second {
				t.Attr("id", "D1")
			}
			firewall(t, tt.rules...)
			d := describe(t)
			var slowest time.Duration
			watch := watchLab()
			for i, a := range ask(t, tt.host, "resolve", reference...) {
				slices.SortFunc(a.Addrs, netip.Addr.Compare)
				if want := d.ways(d.Names[reference[i]]); a.Error != "" || !slices.Equal(a.Addrs, want) {
					t.Errorf("%s: %v, error %q, want %v", reference[i], a.Addrs, a.Error, want)
				}
				watch.Within(t, reference[i], a.Took, tt.within)
				slowest = max(slowest, a.Took)
			}
			t.Logf("%d names, the slowest in %v", len(reference), slowest.Round(time.Millisecond))
		})
	}
}

// TestFirewallClosesWaysToResolver: what the rules of TestNamesResolve close is closed indeed.
func TestFirewallClosesWaysToResolver(t *testing.T) {
	ways := []string{"udp", "tcp"}
	for _, tt := range []struct {
		name  string
		rules []string
		want  []string
	}{
		{"both open", []string{"clear"}, []string{"", ""}},
		{"UDP dropped", []string{"drop", "udp", "53"}, []string{"timeout", ""}},
		{"UDP rejected", []string{"reject", "udp", "53"}, []string{"refused", ""}},
		{"TCP dropped", []string{"drop", "tcp", "53"}, []string{"", "timeout"}},
		{"TCP rejected", []string{"reject", "tcp", "53"}, []string{"", "refused"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			firewall(t, tt.rules...)
			for i, a := range ask(t, "device", "exchange", ways...) {
				if a.Error != tt.want[i] {
					t.Errorf("over %s: %q, want %q", ways[i], a.Error, tt.want[i])
				}
			}
		})
	}
}

func TestOtherNamesDoNotExist(t *testing.T) {
	watch := watchLab()
	for _, a := range ask(t, "device", "resolve", "nothing.example", "www.debian.org", "keb.de.example") {
		if a.Error != "nxdomain" {
			t.Errorf("%v, error %q, want nxdomain", a.Addrs, a.Error)
		}
		watch.Within(t, "nxdomain", a.Took, time.Second)
	}
}

// TestTimeServerAnswers asks the real one for the clock that it shares with us.
func TestTimeServerAnswers(t *testing.T) {
	d := describe(t)
	sources := []string{"time.example", d.ways("time")[0].String(), d.ways("time")[1].String()}
	for i, a := range ask(t, "device", "sntp", sources...) {
		if a.Error != "" || a.Stratum != 2 || a.Offset.Abs() > near {
			t.Errorf("%s: stratum %d, offset %v, error %q", sources[i], a.Stratum, a.Offset, a.Error)
		}
	}
	firewall(t, "drop", "udp", "123")
	if a := ask(t, "device", "sntp", sources[1])[0]; a.Error != "timeout" {
		t.Errorf("with UDP 123 dropped: error %q, want timeout", a.Error)
	}
}
