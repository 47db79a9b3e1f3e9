//go:build linux

package lab

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/internal/wait"
)

const curtain = "relay7" // imposters stand here, where no server of the rig is

// A port that is open but not ours costs a gateway at most five seconds, has its true name in log and report, and learns
// nothing: neither before there is an identity, nor after.
func TestImpostersAreFoundOutAndLearnNothing(t *testing.T) {
	r := newRig(t)
	for i, imposter := range imposters {
		t.Run(imposter.name, func(t *testing.T) {
			t.Attr("id", "N2")
			where, judge := imposter.start(t)
			g := r.addDevice("press-" + string(rune('a'+i)))

			// All ways lead to it: whoever enrolls now gets no identity, and keeps his code.
			firewall(t, "divert", strings.Join(ports, ","), where)
			if enroll := g.agent("enroll", "--code", g.code); enroll.code == 0 || strings.Contains(enroll.stderr, g.code) {
				t.Fatalf("enroll: exit %d: %s", enroll.code, enroll.stderr)
			}
			learnt(t, judge, g, "before there was an identity")

			// The port that is tried first leads to it, the others to the server.
			firewall(t, "divert", "443", where)
			g.enroll()
			g.forget()
			watch := watchLab()
			p, took := g.run(t)
			watch.Within(t, "online", took, 5*time.Second)
			p.stop()
			t.Logf("online after %v; log has %q", took.Round(time.Millisecond), expectReasons(t, p.String(), imposter))
			expectReport(t, g, imposter)
			learnt(t, judge, g, "after there was one")
			if imposter.blurt != "" { // the judge would have seen it
				finish(t, "device", "curl", "-sk", "-m", "2", imposter.blurt+"://"+accessName+":443/"+g.code)
				got := judge() // a proxy writes down what it has seen when it has the time
				for range 100 {
					if bytes.Contains(got, []byte(g.code)) || !wait.Sleep(t.Context(), 50*time.Millisecond) {
						break
					}
					got = judge()
				}
				if !bytes.Contains(got, []byte(g.code)) {
					t.Errorf("curl sent the code, and it is not found in %q", got)
				}
			}
		})
	}
}

// A real inspection comes between a gateway that is online and its server: the gateway is offline and says by whom, and no
// session goes through it, not even one to a technician who is outside.
func TestNoSessionGoesThroughAnInspection(t *testing.T) {
	t.Attr("id", "N2")
	g := newRig(t).addDevice("press-4")
	g.enroll()
	agent, _ := g.run(t)
	g.manager(nil, "ping", g.name, "--count", "1")
	where, judge := sslsplit(t)
	mark := agent.mark()
	firewall(t, "divert", strings.Join(ports, ","), where)
	g.cut()
	closed := agent.await(mark, "reason=tls-intercepted").text
	if !strings.Contains(closed, "Site Proxy CA") {
		t.Errorf("%s; want it to name the CA", closed)
	}
	got := finish(t, "tech", hawser("hawser"), "--home", g.home, "ping", g.name, "--count", "1")
	if got.code != 5 || !strings.Contains(got.stderr, "offline") {
		t.Errorf("ping: exit %d: %s", got.code, got.stderr)
	}
	agent.stop()
	learnt(t, judge, g, "as an inspection")
}

// expectReasons wants each closed way in the agent's log to have one of the imposter's reasons, and one to be there: an
// attempt that was still going on when another had won has none.
func expectReasons(t *testing.T, log string, imposter imposter) (reasons []string) {
	t.Helper()
	for l := range strings.Lines(log) {
		if !strings.Contains(l, `msg="way out closed"`) || !strings.Contains(l, ":443 ") || strings.Contains(l, "gave up") {
			continue
		}
		reason, issuer := value(l, "reason="), value(l, "issuer=")
		if !slices.Contains(imposter.reasons, reason) || !strings.Contains(issuer, imposter.issuer) {
			t.Errorf("reason %q, issuer %q, want %v and %q", reason, issuer, imposter.reasons, imposter.issuer)
		}
		reasons = append(reasons, reason)
	}
	// A silent port may still be waited for when the next one has won; then netcheck alone names its reason.
	if len(reasons) == 0 && !slices.Equal(imposter.reasons, []string{"timeout"}) {
		t.Errorf("no way out closed on port 443 is logged")
	}
	return reasons
}

// value is what follows key in a line of the log, as far as the next key or the end.
func value(line, key string) string {
	_, rest, _ := strings.Cut(line, " "+key)
	if quoted, ok := strings.CutPrefix(rest, `"`); ok {
		rest, _, _ = strings.Cut(quoted, `"`)
		return rest
	}
	rest, _, _ = strings.Cut(rest, " ")
	return strings.TrimSpace(rest)
}

// expectReport wants netcheck to call the imposter by its name, and the other ports open.
func expectReport(t *testing.T, g *gateway, imposter imposter) {
	t.Helper()
	got := g.agent("netcheck", "--json")
	var report struct {
		Ways []struct {
			Port           uint16
			OK             bool
			Reason, Issuer string
		}
	}
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil || got.code != 0 || len(report.Ways) != 2*len(ports) {
		t.Fatalf("netcheck: exit %d, %v: %s%s", got.code, err, got.stdout, got.stderr)
	}
	for _, w := range report.Ways {
		switch {
		case w.Port != 443 && !w.OK:
			t.Errorf("netcheck: port %d is %q, want open", w.Port, w.Reason)
		case w.Port == 443 && (w.OK || !slices.Contains(imposter.reasons, w.Reason) || !strings.Contains(w.Issuer, imposter.issuer)):
			t.Errorf("netcheck: port 443 is %q by %q, want %v by %q", w.Reason, w.Issuer, imposter.reasons, imposter.issuer)
		}
	}
}

// learnt searches what an imposter has received for everything that is not its business.
func learnt(t *testing.T, judge func() []byte, g *gateway, when string) {
	t.Helper()
	got := judge()
	for what, secret := range g.secrets() {
		if bytes.Contains(got, secret) {
			t.Errorf("%s the imposter has received the %s", when, what)
		}
	}
}
