//go:build linux

package lab

import (
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Building took less than 3 s when nobody else used the machine. Nothing was watched then, so there is no bound here.
func TestBuildingTellsHowLongItTook(t *testing.T) {
	took := describe(t).BuiltMS
	if took <= 0 {
		t.Errorf("took %d ms", took)
	}
	t.Logf("the lab was built in %d ms", took)
}

// pings says whether addr answers an echo request. Where an answer is expected there is time for a second request: after a
// change the neighbours may have to find each other again.
func pings(from string, addr netip.Addr, expected bool) bool {
	patience := []string{"-W", "0.4"}
	if expected {
		patience = []string{"-w", "10"}
	}
	command := append([]string{"exec", from, "ping", "-n", "-q", "-c", "1", addr.String()}, patience...)
	return exec.Command("lab", command...).Run() == nil
}

func TestHostsReachWhomTheyShould(t *testing.T) {
	d := describe(t)
	wan := []string{"access1", "access2", "dns", "time", "tech", "site", "relay1", "relay2", "relay3", "relay4", "relay5", "relay6", "relay7"}
	type row struct {
		from, to string
		addr     netip.Addr
		want     bool
	}
	var rows []row
	for _, to := range wan {
		for _, addr := range d.ways(to) {
			rows = append(rows, row{"device", to, addr, true}, row{"tech", to, addr, true})
		}
	}
	device, plc := d.Hosts["device"], d.Hosts["plc1"]
	rows = append(rows, row{"device", "plc1", plc[0], true}, row{"plc1", "device", device[2], true},
		row{"plc1", "device", device[0], false}, row{"plc1", "access1", d.Hosts["access1"][0], false},
		row{"tech", "device", device[0], false}, row{"tech", "device", device[1], false}, row{"tech", "plc1", plc[0], false},
		row{"access1", "device", device[0], false}, row{"relay1", "plc1", plc[0], false})
	var wg sync.WaitGroup
	for chunk := range slices.Chunk(rows, 8) {
		for _, r := range chunk {
			wg.Go(func() {
				if got := pings(r.from, r.addr, r.want); got != r.want {
					t.Errorf("%s reaches %s at %s: %t, want %t", r.from, r.to, r.addr, got, r.want)
				}
			})
		}
		wg.Wait()
	}
}

// Somebody on the WAN who knows the way to the site is stopped by its firewall, and by nothing else.
func TestSiteLetsNobodyIn(t *testing.T) {
	d := describe(t)
	for i, route := range []string{"10.20.0.0/24", "2001:db8:20::/64"} {
		way := []string{route, "via", d.ways("site")[i].String()}
		run(t, append([]string{"ip", "-n", "tech", "route", "add"}, way...)...)
		t.Cleanup(func() { run(t, append([]string{"ip", "-n", "tech", "route", "del"}, way...)...) })
		if device := d.ways("device")[i]; pings("tech", device, false) {
			t.Errorf("the technician reaches %s", device)
		}
		if site := d.Hosts["site"][2+i]; !pings("tech", site, true) {
			t.Errorf("the route does not lead to the site's gateway at %s", site)
		}
	}
}

func TestPulledCableKeepsAddressesAndComesBack(t *testing.T) {
	access := describe(t).ways("access1")
	before := run(t, "ip", "-n", "device", "-brief", "-4", "address")
	for range 3 {
		run(t, "lab", "link", "device", "down")
		if pings("device", access[0], false) || pings("device", access[1], false) {
			t.Error("reaches access1 without a cable")
		}
		run(t, "lab", "link", "device", "up")
		if !pings("device", access[0], true) || !pings("device", access[1], true) {
			t.Error("does not reach access1 again")
		}
	}
	if after := run(t, "ip", "-n", "device", "-brief", "-4", "address"); after != before {
		t.Errorf("addresses were %q, are %q", before, after)
	}
}

func TestOtherCableIsNamed(t *testing.T) {
	d := describe(t)
	run(t, "lab", "link", "device-lan", "down")
	if pings("device", d.Hosts["plc1"][0], false) || !pings("device", d.Hosts["access1"][0], true) {
		t.Error("not the machine's cable was pulled, or not it alone")
	}
	run(t, "lab", "link", "device-lan", "up")
	if !pings("device", d.Hosts["plc1"][0], true) {
		t.Error("does not reach plc1 again")
	}
}

func TestLossIsWhatWasAskedFor(t *testing.T) {
	const sent = 300
	firewall(t, "loss", "30")
	out, _ := exec.Command("lab", "exec", "device", "ping", "-n", "-q", "-i", "0.002", "-c", strconv.Itoa(sent), "-W", "1",
		describe(t).ways("access1")[0].String()).Output() // whose status says that some were lost
	_, rest, _ := strings.Cut(string(out), " packets transmitted, ")
	text, _, _ := strings.Cut(rest, " received")
	received, err := strconv.Atoi(text)
	// There and back, 0.7² = 49 % arrive; six standard deviations of 300 are 52.
	if want := sent * 49 / 100; err != nil || received < want-52 || received > want+52 {
		t.Errorf("%d of %d came back, want about %d: %s", received, sent, want, out)
	}
	t.Logf("%d of %d came back", received, sent)
}

// TestClockCannotBeSet sets the length of a tick to what it is, which needs the right to change the clock.
func TestClockCannotBeSet(t *testing.T) {
	const adjTick = 0x4000 // adjtimex(2)
	var clock syscall.Timex
	if _, err := syscall.Adjtimex(&clock); err != nil {
		t.Fatal(err)
	}
	clock.Modes = adjTick
	if _, err := syscall.Adjtimex(&clock); err != syscall.EPERM {
		t.Errorf("error %v, want %v", err, syscall.EPERM)
	}
}
