//go:build linux

package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// narrow makes the site's gateway pass packets of at most mtu bytes, in both directions, for the rest of the test. Silent
// says that nobody is told, as on so many paths.
func narrow(t *testing.T, mtu int, silent bool) {
	t.Helper()
	if silent {
		swallowErrors(t) // until the path is wide again: nobody learns of it from what is still under way
	}
	// A locked MTU of a route counts for what is passed on, that of the interface for what arrives. The metric is the
	// kernel's own, or IPv6 would have a second route.
	routes := func(mtu ...string) {
		for _, way := range []string{"203.0.113.0/24 dev wan", "10.20.0.0/24 dev site",
			"2001:db8:113::/64 dev wan metric 256", "2001:db8:20::/64 dev site metric 256"} {
			run(t, append(strings.Fields("ip -n site route replace "+way), mtu...)...)
		}
	}
	routes("mtu", "lock", fmt.Sprint(mtu))
	t.Cleanup(func() { routes() })
	for _, host := range []string{"device", "access1", "site"} { // forget what they have learnt of the path
		run(t, "ip", "-n", host, "-4", "route", "flush", "cache")
		run(t, "ip", "-n", host, "-6", "route", "flush", "cache")
	}
}

// swallowErrors has the site's gateway tell nobody that a packet was too big, for the rest of the test.
func swallowErrors(t *testing.T) {
	t.Helper()
	nft := exec.Command("lab", "exec", "site", "nft", "-f", "-")
	nft.Stdin = strings.NewReader("table inet hole { chain output { type filter hook output priority filter;\n" +
		"icmp type destination-unreachable icmp code frag-needed drop\nicmpv6 type packet-too-big drop\n}\n}\n")
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	t.Cleanup(func() { run(t, "lab", "exec", "site", "nft", "delete", "table", "inet", "hole") })
}

// form is the form of the hello by which an agent is online.
func form(p *process) string {
	if strings.Contains(p.await(0, "msg=online ").text, "small=true") {
		return "small"
	}
	return "full"
}

// A path that loses large packets, and tells nobody or does, lets the gateway out.
func TestAgentGetsThroughASmallMTU(t *testing.T) {
	const first, again = 10 * time.Second, time.Second
	g := newRig(t).addDevice("press-4")
	g.enroll()
	move := bulkMachine(t)
	for _, mtu := range []int{1500, 1492, 1400, 1300, 1280} {
		for _, silent := range []bool{true, false} {
			for i, family := range []string{"IPv4", "IPv6"} {
				if mtu == 1500 && !silent {
					continue
				}
				t.Run(fmt.Sprintf("MTU %d, silent %v, %s", mtu, silent, family), func(t *testing.T) {
					t.Attr("id", "W-mtu")
					narrow(t, mtu, silent)
					g.reach(describe(t).ways("access1")[i].String())
					g.forget()
					watch := watchLab()
					searching, found := g.run(t)
					want := "full"
					if mtu < 1500 && silent {
						want = "small"
					}
					if got := form(searching); got != want && (want == "small" || watch.Others() < time.Second) {
						t.Errorf("the hello is %s, want %s", got, want)
					}
					searching.stop()
					remembering, remembered := g.run(t)
					watch.Within(t, "online", found, first)
					watch.Within(t, "online the next time", remembered, again)
					t.Logf("online after %v, the next time after %v", found.Round(time.Millisecond), remembered.Round(time.Millisecond))
					move(t, g)
					if log := remembering.String(); want == "small" && strings.Contains(log, "way out closed") {
						t.Error("the relay was not dialled small at once")
					}
					remembering.stop()
				})
			}
		}
	}
	t.Run("the technician's PC behind it", func(t *testing.T) {
		t.Attr("id", "W-mtu")
		narrow(t, 1300, true)
		watch := watchLab()
		r := must(t, nil, "device", hawser("hawser"), "--home", g.home, "device", "list")
		watch.Within(t, "an answer", r.took, 5*time.Second)
		r = must(t, nil, "device", hawser("hawser"), "--home", g.home, "device", "list")
		watch.Within(t, "an answer the next time", r.took, time.Second)
	})
}

// A box that judges the first segment alone, and resets what it does not understand, lets the gateway out as well.
func TestAgentGetsPastABoxThatJudgesTheFirstSegment(t *testing.T) {
	t.Attr("id", "W-mtu")
	g := newRig(t).addDevice("press-4")
	g.enroll()
	const box = "relay7"
	clauses := []string{}
	for port, via := range map[string]string{"443": "8443", "5935": "8935", "80": "8080"} {
		clauses = append(clauses, "divert", port, box+":"+via)
		to := net.JoinHostPort(describe(t).ways("access1")[0].String(), port)
		serveAt(t, box, []string{":" + via}, func(c net.Conn) { judge(c.(*net.TCPConn), box, to) })
	}
	firewall(t, clauses...)
	g.forget()
	watch := watchLab()
	searching, found := g.run(t)
	if got := form(searching); got != "small" {
		t.Errorf("the hello is %s, want small", got)
	}
	searching.stop()
	remembering, remembered := g.run(t)
	watch.Within(t, "online", found, 10*time.Second)
	watch.Within(t, "online the next time", remembered, time.Second)
	bulkMachine(t)(t, g)
	remembering.stop()
}

// judge passes a connection on when its first record fits into one segment of Ethernet, and resets it else.
func judge(c *net.TCPConn, from, to string) {
	const segment = 1460
	first := make([]byte, segment)
	n, err := io.ReadAtLeast(c, first, 5)
	if err != nil {
		return
	}
	if 5+int(binary.BigEndian.Uint16(first[3:])) > segment {
		_ = c.SetLinger(0)
		return
	}
	far, err := dialAt(context.Background(), from, to)
	if err != nil {
		return
	}
	defer far.Close()
	if _, err := far.Write(first[:n]); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(far, c); _ = far.Close() })
	both.Go(func() { _, _ = io.Copy(c, far); _ = c.Close() })
	both.Wait()
}

// bulkMachine has plc1 send and take a file. What it returns opens a session and moves the file both ways at once.
func bulkMachine(t *testing.T) func(*testing.T, *gateway) {
	t.Helper()
	_, want := noise(t, 20<<20)
	type taken struct {
		bytes []byte
		err   error
	}
	arrived := make(chan taken, 1)
	address := net.JoinHostPort(plc(t), "9")
	serveAt(t, "plc1", []string{address}, func(c net.Conn) {
		var both sync.WaitGroup
		both.Go(func() {
			_, _ = c.Write(want) // what is missing shows at the other end
			_ = c.(*net.TCPConn).CloseWrite()
		})
		got, err := io.ReadAll(c)
		both.Wait()
		arrived <- taken{got, err}
	})
	return func(t *testing.T, g *gateway) {
		t.Helper()
		session, addrs := g.connect(t, "0:"+address)
		defer session.kill()
		c, err := dialAt(t.Context(), "tech", addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(outer)); err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		both.Go(func() {
			_, err := c.Write(want)
			if err == nil {
				err = c.(*net.TCPConn).CloseWrite()
			}
			if err != nil {
				t.Errorf("send: %v", err)
			}
		})
		got, err := io.ReadAll(c)
		both.Wait()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d of %d bytes came from the machine, or others: %v", len(got), len(want), err)
		}
		select {
		case a := <-arrived:
			if a.err != nil || !bytes.Equal(a.bytes, want) {
				t.Errorf("%d of %d bytes arrived at the machine, or others: %v", len(a.bytes), len(want), a.err)
			}
		case <-time.After(outer):
			t.Error("the machine did not get the end")
		}
	}
}
