//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"hawser/agent"
)

// balancer is the host with the load balancer, and its name for the gateway.
const balancer, balancerName = "access2", "ccas2.keb.de"

// haproxy is the real one, in front of the Access Server on access1, with this idle limit.
func haproxy(t *testing.T, limit time.Duration) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "conf")
	conf := fmt.Sprintf(`defaults
	mode tcp
	timeout connect 5s
	timeout client %[1]s
	timeout server %[1]s
frontend hawser
	bind :::443 v4v6
	default_backend access
backend access
	server access1 %[2]s:443
`, limit, describe(t).ways("access1")[0])
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, balancer, "haproxy", "-db", "-f", file)
	p.awaitPort(443)
	return p
}

// Debian's HAProxy with an idle limit, as many stand in front of servers: what it cuts teaches the gateway, and after three
// cuts there are no more.
func TestGatewayBehindHAProxyIsNotCutForEver(t *testing.T) {
	t.Attr("id", "W-idle")
	const limit, lost = 10 * time.Second, `msg="will try again"`
	g := newRig(t).addDevice("press-4")
	g.enroll()
	g.reach(balancerName)
	haproxy(t, limit)
	p, _ := g.run(t)
	learned := p.await(0, `msg="idle link has another interval"`)
	cuts := strings.Count(p.String(), lost)
	// It pings every 4 s, then every 5 s. Longer than the limit later it is still there, and is of use.
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for until := time.Now().Add(2*limit + limit/2); time.Now().Before(until) && strings.Count(p.String(), lost) == cuts; {
		<-poll.C
	}
	g.manager(nil, "ping", g.name, "--count", "1")
	if now := strings.Count(p.String(), lost); cuts > 3 || now > cuts {
		t.Errorf("%d cuts, %d after it had learned", now, now-cuts)
	}
	var st agent.Status
	must(t, &st, "device", hawser("hawser-agent"), "--data", g.data, "status", "--json")
	if st.State != agent.StateAttached || st.Data.IntervalS < 4 || st.Data.IntervalS > 8 || time.Since(learned.at) < 2*limit {
		t.Errorf("status %+v", st)
	}
	t.Logf("%d cuts, learned after %v, pings every %d s", cuts, learned.at.Sub(p.began).Round(time.Second), st.Data.IntervalS)
}

// A NAT that has lost its table passes nothing of a link any more, and tells nobody: here the packets of that one port are
// dropped. TCP's keepalive is off, so it is the ping that finds out.
func TestForgottenLinkIsOfUseAgainSoon(t *testing.T) {
	t.Attr("id", "W-idle")
	const heartbeat = 5 * time.Second
	g := newRig(t, "heartbeat: 2m0s", "heartbeat: "+heartbeat.String()).addDevice("press-4")
	g.enroll()
	agent, _ := g.run(t)
	online := g.server.await(0, "msg=online uid="+g.uid).text
	port := online[strings.LastIndex(online, ":")+1:] // as the NAT has made it
	mark := agent.mark()
	watch, forgotten := watchLab(), time.Now()
	on := []string{"lab", "exec", "access1", "nft"}
	run(t, append(on, "table inet forgotten { chain in { type filter hook input priority 0; tcp sport "+port+" drop; }; "+
		"chain out { type filter hook output priority 0; tcp dport "+port+" drop; }; }")...)
	t.Cleanup(func() { run(t, append(on, "delete", "table", "inet", "forgotten")...) })
	back := agent.await(mark, "online "+g.uid).at.Sub(forgotten)
	g.manager(nil, "ping", g.name, "--count", "1")
	watch.Within(t, "of use again", back, heartbeat+15*time.Second)
	t.Logf("of use again after %v", back.Round(time.Millisecond))
}

// A site's NAT that loses its table while the link is idle, because it was restarted or somebody has emptied it: the kernel's
// own (conntrack). As many firewalls do, it takes no packet from the middle of a connection for a new one.
func TestFlushedNATIsOfUseAgainSoon(t *testing.T) {
	const heartbeat = 5 * time.Second
	g := newRig(t, "heartbeat: 2m0s", "heartbeat: "+heartbeat.String()).addDevice("press-4")
	g.enroll()
	way := describe(t).ways("access1")[0].String()
	g.reach(way)
	on := []string{"lab", "exec", "site"}
	run(t, append(on, "nft", "table inet strict { chain f { type filter hook forward priority -5; "+
		"tcp flags & (fin|syn|rst|ack) != syn ct state new drop; }; }")...)
	t.Cleanup(func() { run(t, append(on, "nft", "delete", "table", "inet", "strict")...) })
	for name, forget := range map[string][]string{
		"the whole table": {"conntrack", "-F"},
		"one link":        {"conntrack", "-D", "-p", "tcp", "--orig-src", "10.20.0.2", "--orig-dst", way},
	} {
		t.Run(name, func(t *testing.T) {
			t.Attr("id", "W-idle")
			agent, _ := g.run(t)
			agent.await(0, `msg="relay measured"`) // what it does once is done
			mark, watch, forgotten := agent.mark(), watchLab(), time.Now()
			run(t, append(on, forget...)...)
			back := agent.await(mark, "online "+g.uid).at.Sub(forgotten)
			g.manager(nil, "ping", g.name, "--count", "1")
			watch.Within(t, "of use again", back, heartbeat+15*time.Second)
			t.Attr("count", fmt.Sprintf("ms until of use again, conntrack forgot %s=%d", name, back.Milliseconds()))
			agent.stop()
		})
	}
}

// The kernel counts what an idle link costs: a ping and its pong are 212 bytes, and there is nothing else (wire §4.6.2).
func TestPingAndPongCostWhatTheSpecificationSays(t *testing.T) {
	t.Attr("id", "W-idle")
	const exchanges, exchangeBytes = 10, 212
	g := newRig(t, "heartbeat: 2m0s", "heartbeat: 6s").addDevice("press-4")
	g.enroll()
	way := describe(t).ways("access1")[0].String()
	g.reach(way)
	agent, _ := g.run(t)
	agent.await(0, `msg="relay measured"`) // what it does once is done
	on := []string{"lab", "exec", "device", "nft"}
	run(t, append(on, `table inet count {
		chain in { type filter hook input priority 0; ip saddr `+way+` tcp sport {80, 443, 5935} counter; }
		chain out { type filter hook output priority 0; ip daddr `+way+` tcp dport {80, 443, 5935} counter; }
	}`)...)
	t.Cleanup(func() { run(t, append(on, "delete", "table", "inet", "count")...) })
	count := func() (packets, bytes int) {
		for _, m := range regexp.MustCompile(`counter packets (\d+) bytes (\d+)`).FindAllStringSubmatch(run(t, append(on, "list", "table", "inet", "count")...), -1) {
			p, _ := strconv.Atoi(m[1])
			b, _ := strconv.Atoi(m[2])
			packets, bytes = packets+p, bytes+b
		}
		return packets, bytes
	}
	poll := time.NewTicker(time.Second) // an exchange is over long before, and there is one in 6 s
	defer poll.Stop()
	limit := time.After(outer)
	await := func(least int) (packets, bytes int) {
		for {
			before, _ := count()
			select {
			case <-poll.C:
			case <-limit:
				t.Fatalf("%d packets, want %d", before, least)
			}
			if packets, bytes = count(); packets == before && packets >= least {
				return packets, bytes
			}
		}
	}
	packets, bytes := await(1) // the first one may have begun before the counting
	for n := range exchanges {
		before, beforeBytes := packets, bytes
		packets, bytes = await(before + 3)
		t.Logf("exchange %d: %d packets, %d bytes", n+1, packets-before, bytes-beforeBytes)
		if packets-before == 3 && bytes-beforeBytes == exchangeBytes {
			t.Attr("count", fmt.Sprintf("bytes of a ping and its pong=%d", exchangeBytes))
			return
		}
	}
	// One that is slower than 40 ms has an acknowledgement of its own: a machine with much to do shows some of these.
	t.Errorf("none of %d exchanges is 3 packets of %d bytes", exchanges, exchangeBytes)
}
