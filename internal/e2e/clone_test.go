//go:build linux

package e2e

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent"
	"hawser/internal/wait"
	"hawser/manager"
	"hawser/server/store"
	"hawser/transport"
)

// thiefAddr is where a copy of the gateway's state directory runs.
var thiefAddr = netip.MustParseAddr("198.51.100.66")

// copied is the options of an agent with a copy of the state directory of another one, somewhere else.
func (w *world) copied(o agent.Options, name string) agent.Options {
	w.t.Helper()
	dir := filepath.Join(w.dir, name)
	copyFiles(w.t, o.Config.Data, dir)
	o.Config.Data, o.Log, o.DialContext = dir, w.logger(name), w.net.Host(thiefAddr).DialContext
	return o
}

// copyFiles copies what a thief needs of a state directory.
func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err == nil {
		err = os.Mkdir(to, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) agent(name string, o agent.Options) (a *agent.Agent, stop func()) {
	w.t.Helper()
	a, err := agent.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return a, w.task(name, a.Run)
}

// audited counts the audit records with this action and result.
func (w *world) audited(action, result string) (n int) {
	w.t.Helper()
	err := w.store.View(w.t.Context(), func(tx *store.Tx) error {
		records, err := tx.Audit(store.AuditFilter{Limit: 1000})
		for _, r := range records {
			if r.Action == action && r.Result == result {
				n++
			}
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) cloned(tech *manager.Account) bool {
	w.t.Helper()
	d, err := tech.Device(w.t.Context(), "press 4")
	if err != nil {
		w.t.Fatal(err)
	}
	return d.Cloned != nil
}

func attached(a *agent.Agent) func() bool {
	return func() bool { st := a.Status(); return st.State == agent.StateAttached && st.Fresh == nil }
}

func shows(a *agent.Agent) func() bool { return func() bool { return a.Status().Fresh != nil } }

// Somebody copies a gateway's state directory while a technician works through it, and runs it elsewhere. Both are put apart at
// the gateway's first return, nobody gets in any more, and the admin says from afar which one it is.
func TestACopiedGatewayIsFoundAndCuredFromAfar(t *testing.T) {
	t.Attr("id", "T-clone")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stops := []func(){w.accessServer(), w.relayServer(), w.resolver(), w.echo()}
		defer func() {
			for _, stop := range stops {
				stop()
			}
		}()
		tech := w.technician()
		defer tech.Close()
		o := w.enrolled(tech, "press 4")
		gateway, stopGateway := w.agent("gateway", o)
		w.within(time.Minute, "online", attached(gateway))
		time.Sleep(time.Minute)
		forward, err := manager.ParseForward("1502:" + machineAddr.String() + ":502")
		if err != nil {
			t.Fatal(err)
		}
		connected := make(chan error, 1)
		stopConnect := w.task("connect", func(ctx context.Context) error {
			connected <- tech.Connect(ctx, "press 4", []manager.Forward{forward}, io.Discard, w.log)
			return nil
		})
		defer stopConnect()
		w.within(10*time.Second, "a tool reads the PLC", w.reaches)

		thief, stopThief := w.agent("thief", w.copied(o, "thief"))
		admin, err := (&manager.Manager{Home: filepath.Join(w.dir, "tech"), NoPassphrase: true, Log: w.logger("admin"), Resolve: w.static,
			DialContext: w.net.Host(techAddr).DialContext}).Open()
		if err != nil {
			t.Fatal(err)
		}
		defer admin.Close()
		w.within(time.Minute, "both are put apart", func() bool { return shows(gateway)() && shows(thief)() })
		if n := w.audited("offline", string(transport.Replaced)); n > 2 {
			t.Errorf("%d times one replaced the other", n)
		}
		if n := w.audited("device-cloned", string(transport.Cloned)); n != 1 {
			t.Errorf("%d alarms", n)
		}
		if w.reaches() {
			t.Error("the session goes on")
		}
		if _, err := admin.Ping(t.Context(), "press 4", 1, func(int, time.Duration) {}); transport.ReasonOf(err) != transport.Cloned {
			t.Errorf("ping: %v", err)
		}
		if st := gateway.Status(); st.Signal != agent.SignalRefused || !strings.Contains(strings.Join(st.Troubles, " "), st.Fresh.Words) {
			t.Errorf("status: %+v", st)
		}
		time.Sleep(time.Hour) // nothing flaps
		if n := w.audited("offline", string(transport.Cloned)); n > 3 {
			t.Errorf("%d connections were ended as cloned", n)
		}

		words := func(words string) func([]manager.Machine) (string, error) {
			return func(all []manager.Machine) (string, error) {
				if len(all) != 2 || all[0].Words == all[1].Words {
					t.Errorf("machines: %+v", all)
				}
				return words, nil
			}
		}
		if _, err := admin.AcceptDevice(t.Context(), "press 4", words("babab babab babab babab")); transport.ReasonOf(err) != transport.Policy {
			t.Errorf("words of nobody: %v", err)
		}
		if _, err := admin.AcceptDevice(t.Context(), "press 4", words(strings.ToUpper(gateway.Status().Fresh.Words))); err != nil {
			t.Fatal(err)
		}
		w.within(time.Minute, "the gateway has its key", attached(gateway))
		w.within(time.Minute, "the copy is refused", func() bool { return thief.Status().State == agent.StateQuarantined })
		if _, err := admin.Ping(t.Context(), "press 4", 1, func(int, time.Duration) {}); err != nil || w.cloned(admin) {
			t.Errorf("ping: %v", err)
		}
		time.Sleep(3 * time.Hour)
		if thief.Status().State != agent.StateQuarantined || !attached(gateway)() {
			t.Errorf("three hours later the gateway is %s and the copy %s", gateway.Status().State, thief.Status().State)
		}
		stopGateway()
		gateway, stopGateway = w.agent("gateway", o) // from what is on its disk
		w.within(time.Minute, "started again", attached(gateway))
		if _, err := admin.Ping(t.Context(), "press 4", 1, func(int, time.Duration) {}); err != nil {
			t.Errorf("ping: %v", err)
		}
		stopThief()
		stopGateway()
	})
}

// A copy that was made while the gateway was off, and that lies for months, is found when the second one comes; whichever.
func TestACopyThatLayForMonthsIsFoundWhenTheSecondComes(t *testing.T) {
	t.Attr("id", "T-clone")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stops := []func(){w.accessServer(), w.resolver()}
		defer func() {
			for _, stop := range stops {
				stop()
			}
		}()
		tech := w.technician()
		defer tech.Close()
		o := w.enrolled(tech, "press 4")
		for range 3 { // a gateway that is switched off and on is no clone
			gateway, stop := w.agent("gateway", o)
			w.within(time.Minute, "online", attached(gateway))
			time.Sleep(time.Second)
			stop()
		}
		theirs := w.copied(o, "thief")
		time.Sleep(100 * 24 * time.Hour)
		thief, stopThief := w.agent("thief", theirs)
		w.within(time.Minute, "the copy is online", attached(thief))
		time.Sleep(time.Minute)
		stopThief()
		if w.audited("device-cloned", string(transport.Cloned)) > 0 {
			t.Error("it is cloned before the second one came")
		}
		gateway, stopGateway := w.agent("gateway", o)
		w.within(time.Minute, "the gateway is put apart", shows(gateway))
		stopGateway()
		if n := w.audited("offline", string(transport.Replaced)); n > 0 {
			t.Errorf("%d replacements", n)
		}
	})
}

// With the programs as they are, and what people type.
func TestAClonedGatewayIsAcceptedByItsWords(t *testing.T) {
	t.Attr("id", "T-clone")
	in := newInfra(t)
	plc := machine(t, func(c net.Conn) { io.WriteString(c, "42") })
	g := in.addDevice("press-4", loopbackAllowed)
	g.enroll()
	g.run()
	reaches(t, g, plc)
	twin := in.path("twin")
	copyFiles(t, g.data, twin)
	start(t, "hawser-agent", "--data", twin, "run").line("online " + g.uid)
	words := func(data string) string {
		var shown struct {
			Fresh struct{ Words string } `json:"fresh_key"`
		}
		for end := time.Now().Add(patience); shown.Fresh.Words == "" && time.Now().Before(end); wait.Sleep(t.Context(), 100*time.Millisecond) {
			command(t, &shown, "hawser-agent", "--data", data, "identity", "show", "--json")
		}
		return shown.Fresh.Words
	}
	mine, other := words(g.data), words(twin)
	if mine == "" || mine == other {
		t.Fatalf("words %q and %q", mine, other)
	}
	in.refused("cloned", "ping", "press-4")
	var d struct {
		State    string
		Machines []struct{ Words string }
	}
	if in.tech(&d, "device", "show", "press-4", "--json"); len(d.Machines) != 2 {
		t.Errorf("machines: %+v", d)
	}
	if out, _, _ := outcome(t, "hawser", "--home", in.home, "device", "list"); !strings.Contains(out, "cloned") {
		t.Errorf("list: %s", out)
	}
	in.refused("fingerprint", "device", "accept", "press-4")
	in.refused("no machine has these words", "device", "accept", "press-4", "--fingerprint", "babab babab babab babab")
	in.tech(nil, "device", "accept", "press-4", "--fingerprint", strings.ReplaceAll(mine, " ", "-"))
	g.agent.line("online " + g.uid)
	for end := time.Now().Add(patience); time.Now().Before(end); wait.Sleep(t.Context(), 100*time.Millisecond) {
		if _, code, _ := outcome(t, "hawser", "--home", in.home, "ping", "press-4"); code == 0 {
			break
		}
	}
	reaches(t, g, plc)
	var st struct{ State string }
	for end := time.Now().Add(patience); st.State != "quarantined" && time.Now().Before(end); wait.Sleep(t.Context(), 100*time.Millisecond) {
		command(t, &st, "hawser-agent", "--data", twin, "status", "--json")
	}
	if st.State != "quarantined" {
		t.Errorf("the copy is %s", st.State)
	}
}

// A server that is put back to its backup has forgotten how often the gateway was there since. The gateway shows it,
// and nobody is taken for a copy.
func TestAServerRestoredFromItsBackupRaisesNoAlarm(t *testing.T) {
	t.Attr("id", "T-clone")
	in := newInfra(t)
	g := in.addDevice("press-4")
	g.enroll()
	g.run()
	in.tech(nil, "ping", "press-4")
	config, backup := in.path("server/server.yaml"), in.path("backup.store")
	command(t, nil, "hawser-server", "backup", "--config", config, backup)
	for range 2 {
		g.agent.stop()
		g.run()
		in.tech(nil, "ping", "press-4")
	}
	in.server.stop()
	command(t, nil, "hawser-server", "restore", "--config", config, "--replace", backup)
	in.serve()
	g.agent.line("online " + g.uid)
	in.tech(nil, "ping", "press-4")
	g.agent.stop()
	g.run() // and comes again
	in.tech(nil, "ping", "press-4")
	var records []struct{ Action, Result string }
	in.tech(&records, "audit", "--device", "press-4", "--limit", "1000", "--json")
	seen := make(map[string]int)
	for _, r := range records {
		seen[r.Action]++
	}
	if seen["join-behind"] != 1 || seen["device-cloned"] != 0 {
		t.Errorf("want one join-behind and no device-cloned: %v", seen)
	}
}
