//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent"
	"hawser/identity"
	"hawser/internal/wait"
	"hawser/transport/api"
)

// unclaimed makes the state directory of a gateway that knows its server, and nothing else.
func (in *infra) unclaimed(name string) *gateway {
	in.t.Helper()
	g := &gateway{infra: in, name: name, data: in.path(name)}
	config := fmt.Sprintf("access: [127.0.0.1]\nports: [%s]\nroot: %s\nallow: []\ntime: {set_system_clock: never}\nlog: debug\n",
		strings.Join(in.ports, ", "), in.root)
	if err := os.Mkdir(g.data, 0o700); err != nil {
		in.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(g.data, "agent.yaml"), []byte(config), 0o600); err != nil {
		in.t.Fatal(err)
	}
	return g
}

// enrollFrom is a gateway that is switched on with the file of an image, and killed in the middle, some times. It
// returns how often that was before it had ended.
func (g *gateway) enrollFrom(file string, cuts int) (killed int) {
	text, err := os.ReadFile(file)
	if err != nil {
		g.t.Error(err)
		return 0
	}
	for end := time.Now().Add(patience); time.Now().Before(end); cuts-- {
		own := g.data + ".provision"
		if err := os.WriteFile(own, text, 0o600); err != nil {
			g.t.Error(err)
			return killed
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if cuts > 0 {
			time.AfterFunc(wait.Random(600*time.Millisecond), cancel) // SIGKILL
		}
		err := exec.CommandContext(ctx, program(g.t, "hawser-agent"), "--data", g.data, "enroll", "--file", own).Run()
		if err != nil && ctx.Err() != nil {
			killed++
		}
		cancel()
		if err == nil {
			return killed
		}
		if _, err := os.Stat(filepath.Join(g.data, "identity.pem")); err == nil {
			return killed // after it was stored
		}
		wait.Sleep(g.t.Context(), 200*time.Millisecond)
	}
	g.t.Errorf("%s does not enroll", g.name)
	return killed
}

type shownIdentity struct {
	UID, Domain, SPKI string
	Enrolled          bool
	Claim             string `json:"claim_code"`
}

func (g *gateway) info() (info shownIdentity) {
	command(g.t, &info, "hawser-agent", "--data", g.data, "identity", "show", "--json")
	return info
}

// Fifty gateways of one image come up at once, they and their server are killed meanwhile, and each has an identity of
// its own in the end.
func TestFiftyGatewaysOfOneImage(t *testing.T) {
	const n = 50
	t.Attr("id", "T-batch")
	t.Attr("cases", fmt.Sprint(n))
	in := newInfra(t)
	file := in.path("press.txt")
	var made struct {
		Lookup, Code, File string
		Devices            int
	}
	command(t, &made, "hawser", "--home", in.home, "device", "add", "press", "--batch", fmt.Sprint(n), "--folder", "hall", "--out", file, "--json")
	if made.Devices != n || made.Code != "" || made.File != file {
		t.Fatalf("%+v", made)
	}
	gateways := make([]*gateway, n)
	for i := range gateways {
		gateways[i] = in.unclaimed(fmt.Sprintf("box%d", i))
	}
	var all sync.WaitGroup
	var killed atomic.Int64
	for _, g := range gateways {
		all.Go(func() { killed.Add(int64(g.enrollFrom(file, rand.IntN(4)))) })
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for range 3 {
		select {
		case <-done:
		case <-time.After(500*time.Millisecond + wait.Random(time.Second)):
			in.server.kill()
			in.serve()
		}
	}
	<-done
	t.Attr("count", fmt.Sprintf("enrollments that were killed=%d", killed.Load()))
	if killed.Load() == 0 {
		t.Error("no gateway was killed while it enrolled: this test tries nothing")
	}
	uids := make(map[string]string)
	for _, g := range gateways {
		info := g.info()
		if other, ok := uids[info.UID]; ok || !info.Enrolled {
			t.Errorf("%s: %+v, as %s", g.name, info, other)
		}
		uids[info.UID] = g.name
	}
	var devices []api.Device
	command(t, &devices, "hawser", "--home", in.home, "device", "list", "--batch", made.Lookup, "--state", "enrolled", "--json")
	for _, d := range devices {
		if uids[d.UID.String()] == "" || d.Folder != "hall" {
			t.Errorf("nobody has %+v", d)
		}
	}
	if len(devices) != n {
		t.Errorf("%d of %d devices are enrolled", len(devices), n)
	}
	late := in.unclaimed("late")
	if _, code, errs := outcome(t, "hawser-agent", "--data", late.data, "enroll", "--file", file); code != 4 || !strings.Contains(errs, "every place of this batch is taken") {
		t.Errorf("one too many: exit %d: %s", code, errs)
	}
	in.confirmBatch(made.Lookup, gateways[:3])
}

// confirmBatch lets some gateways come online, whose keys wait until a person has seen them.
func (in *infra) confirmBatch(lookup string, some []*gateway) {
	in.t.Helper()
	for _, g := range some {
		g.uid = g.info().UID
		g.run()
	}
	home := []string{"--home", in.home, "device", "confirm", "--batch", lookup}
	_, code, errs := outcome(in.t, "hawser", home...)
	for _, g := range some {
		if code != 2 || !strings.Contains(errs, g.uid) {
			in.t.Errorf("without a terminal: exit %d: %s", code, errs)
		}
	}
	command(in.t, nil, "hawser", append(home, "--yes")...)
	for _, g := range some {
		var d struct{ Key, Name string }
		command(in.t, &d, "hawser", "--home", in.home, "device", "show", g.uid, "--json")
		if d.Key != "confirmed" {
			in.t.Errorf("%s: %+v", g.uid, d)
		}
	}
	var ended struct{ Devices int }
	command(in.t, &ended, "hawser", "--home", in.home, "device", "revoke", "--batch", lookup, "--json")
	if ended.Devices != 0 {
		in.t.Errorf("%d devices of the batch waited", ended.Devices)
	}
}

// A technician beside a box that knows its server and nothing else types what it shows.
func TestABoxIsClaimed(t *testing.T) {
	t.Attr("id", "T-claim")
	in := newInfra(t)
	g := in.unclaimed("press-9")
	g.agent = start(t, "hawser-agent", "--data", g.data, "run")
	code := ""
	for end := time.Now().Add(patience); code == "" && time.Now().Before(end); wait.Sleep(t.Context(), 50*time.Millisecond) {
		code = g.info().Claim
	}
	if out, _, _ := outcome(t, "hawser-agent", "--data", g.data, "identity", "show"); !strings.Contains(out, "hawser device claim "+code) {
		t.Errorf("identity show: %s", out)
	}
	if _, exit, errs := outcome(t, "hawser", "--home", in.home, "device", "claim", code[:len(code)-2]+"AA", "press-9"); exit != 2 {
		t.Errorf("mistyped: exit %d: %s", exit, errs)
	}
	// It asks every minute, and at once when it is switched on.
	claim := start(t, "hawser", "--home", in.home, "device", "claim", code, "press-9", "--wait", "--json")
	for end := time.Now().Add(patience); time.Now().Before(end); wait.Sleep(t.Context(), 50*time.Millisecond) {
		var devices []api.Device
		if command(t, &devices, "hawser", "--home", in.home, "device", "list", "--state", "pending", "--json"); len(devices) == 1 {
			break
		}
	}
	g.agent.kill()
	g.run()
	if line := claim.line("{"); !strings.Contains(line, `"key":"confirmed"`) || !strings.Contains(line, `"name":"press-9"`) {
		t.Errorf("claimed: %s", line)
	}
	if err := claim.wait(); err != nil {
		t.Errorf("claim: %v", err)
	}
	for _, log := range []string{g.agent.log.String(), in.server.log.String()} {
		if strings.Contains(log, code[10:]) {
			t.Error("the code is in a log")
		}
	}
	command(t, nil, "hawser", "--home", in.home, "ping", "press-9", "--count", "1", "--json")
	if _, exit, errs := outcome(t, "hawser", "--home", in.home, "device", "claim", code, "other"); exit == 0 || !strings.Contains(errs, "none waits") {
		t.Errorf("a code that was used: exit %d: %s", exit, errs)
	}
}

// Fifty boxes of one image that were never told whose they are wait at once, behind one address. Each shows a code of
// its own, and is, when that was claimed, the device of that claim and of no other; some are off meanwhile.
func TestFiftyBoxesAreClaimed(t *testing.T) {
	const n = 50
	t.Attr("id", "T-claim")
	t.Attr("cases", fmt.Sprint(n))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stops := []func(){w.accessServer(), w.resolver()}
		tech := w.technician()
		defer tech.Close()
		type box struct {
			options agent.Options
			agent   *agent.Agent
			stop    func()
			code    identity.OwnerCode
			claimed identity.UID
		}
		boxes := make([]*box, n)
		codes := make(map[string]bool)
		for i := range boxes {
			b := &box{options: w.gateway()}
			b.options.Config.Data = filepath.Join(w.dir, fmt.Sprintf("box%d", i))
			b.agent, b.stop = w.agent(fmt.Sprintf("box%d", i), b.options)
			boxes[i] = b
		}
		time.Sleep(5 * time.Minute)
		for i, b := range boxes {
			info, err := agent.ShowIdentity(b.options.Config.Data)
			if err != nil || info.Enrolled || info.ClaimCode == "" || codes[info.ClaimCode] {
				t.Fatalf("box %d: %+v, %v", i, info, err)
			}
			codes[info.ClaimCode] = true
			b.code = parsed(t, info.ClaimCode)
			if i%3 == 0 {
				b.stop()
			}
		}
		for i, b := range boxes {
			if _, err := tech.Waiting(t.Context(), b.code); err != nil {
				t.Errorf("box %d: %v", i, err)
			}
			d, err := tech.ClaimDevice(t.Context(), b.code, fmt.Sprintf("press %d", i), "hall")
			if err != nil {
				t.Fatalf("box %d: %v", i, err)
			}
			b.claimed = d.UID
		}
		for i, b := range boxes {
			if i%3 == 0 {
				b.agent, b.stop = w.agent(fmt.Sprintf("box%d", i), b.options)
			}
		}
		uids, keys := make(map[string]bool), make(map[string]bool)
		for i, b := range boxes {
			w.within(5*time.Minute, fmt.Sprintf("box %d is online", i), attached(b.agent))
			info, err := agent.ShowIdentity(b.options.Config.Data)
			if err != nil || info.UID != b.claimed.String() || uids[info.UID] || keys[info.SPKI] {
				t.Errorf("box %d, claimed as %s, is %+v, %v", i, b.claimed, info, err)
			}
			uids[info.UID], keys[info.SPKI] = true, true
		}
		all, err := tech.Devices(t.Context())
		if err != nil || len(all) != n {
			t.Errorf("%d devices, %v", len(all), err)
		}
		for _, d := range all {
			if !uids[d.UID.String()] || !keys[d.SPKI.String()] || !d.Online {
				t.Errorf("nobody is %+v", d)
			}
		}
		for _, b := range boxes {
			b.stop()
		}
		for _, stop := range stops {
			stop()
		}
	})
}
