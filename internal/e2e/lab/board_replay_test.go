//go:build linux

package lab

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"hawser/identity"
)

// TestBoardKeepsIdentityInEveryStateOfItsDisk records, on the board, each write to the disk below an agent's state directory
// while it enrolls, renews and stores its anchor. Then it puts every state that the disk had onto another disk, has the kernel
// mount it and asks for the identity. The answer is the old or the new one, and always that once there was one.
func TestBoardKeepsIdentityInEveryStateOfItsDisk(t *testing.T) {
	t.Attr("id", "Q4")
	r := newRig(t)
	siteDHCP(t)
	b := r.newBoard(t, imx6ul, "press-4")
	g := r.addDevice("press-5") // whose state directory is on the recorded disk
	b.boot(t)
	b.awaitOnline(0)
	g.record(t, b)
	var outcomes []struct {
		Mark         string
		States, Code int
		Output       string
	}
	text := b.console.run(t, "guest replay /dev/ram2 /tmp/empty.img /dev/ram1 /run/disk hawser-agent --data /run/disk/state identity show --json")
	if err := json.Unmarshal([]byte(text), &outcomes); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	states, steps, noticed := map[string]int{}, []string{}, 0
	for _, o := range outcomes {
		states[o.Mark] += o.States
		var is struct {
			UID      string
			NotAfter time.Time `json:"not_after"`
			Enrolled bool
		}
		if o.Mark == "careless" {
			noticed += o.States * min(o.Code, 1)
			continue
		}
		if o.Code != 0 || json.Unmarshal([]byte(o.Output), &is) != nil || is.Enrolled && is.UID != g.uid {
			t.Errorf("%s, %d states: exit %d: %s", o.Mark, o.States, o.Code, o.Output)
			continue
		}
		if step := fmt.Sprint(is.Enrolled, " until ", is.NotAfter.Unix()); len(steps) == 0 || steps[len(steps)-1] != step {
			steps = append(steps, step)
		}
	}
	t.Logf("states of the disk: %v; the identity: %q; unreadable after careless writes: %d", states, steps, noticed)
	if noticed == 0 {
		t.Error("a careless write is not noticed: neither would be one of the agent's")
	}
	// None; the first; the one with old dates in its place; the renewed one. Each once, and never back.
	if len(steps) != 4 {
		t.Errorf("the identity went through %q", steps)
	}
	for _, mark := range []string{"enroll", "renew", "anchor"} {
		t.Attr("count", fmt.Sprintf("states of the disk in %s=%d", mark, states[mark]))
		if states[mark] == 0 {
			t.Errorf("nothing was written in %s", mark)
		}
	}
}

// record has the agent of g, on b, write to a disk that notes everything.
func (g *gateway) record(t *testing.T, b *board) {
	t.Helper()
	run := func(text string) string { t.Helper(); return b.console.run(t, text) }
	run(`insmod /lib/test-brd.ko rd_nr=3 rd_size=32768 && insmod /lib/test-dm-mod.ko && insmod /lib/test-dm-log-writes.ko
		mkdir /run/disk && mount -t tmpfs tmpfs /tmp && busybox zcat /lib/test-disk.gz >/tmp/empty.img && cat /tmp/empty.img >/dev/ram0`)
	run("guest record disk /dev/ram0 /dev/ram1 && mount -t ext4 -o noatime /dev/dm-0 /run/disk && mkdir -m 700 /run/disk/state && sync")
	agent := "hawser-agent --data /run/disk/state "
	b.put(t, "/run/disk/state/root.pem.given", contents(t, g.root))
	b.put(t, "/run/disk/state/agent.yaml", fmt.Appendf(nil, "access: [%s]\nroot: root.pem.given\n", accessName))
	run("guest mark disk enroll && " + agent + "enroll --code " + g.code + " && sync && guest mark disk old-dates")
	b.put(t, "/run/disk/state/identity.pem", g.aged(t, run("cat /run/disk/state/identity.pem")))
	online := func(mark string) {
		t.Helper()
		run("guest mark disk " + mark + "; " + agent + "run >/run/log 2>&1 & pid=$!; until grep -q ^online /run/log; do usleep 100000; done; sleep 2; kill $pid; wait; sync; cat /run/log")
	}
	online("renew")
	online("anchor")
	online("anchor")
	// At last the fault that all this is about: a file that is written in its place.
	run("guest mark disk careless && cd /run/disk/state && cp identity.pem /run/pem && head -n 3 /run/pem >identity.pem && sync && cat /run/pem >identity.pem && sync")
	run("umount /run/disk && guest unrecord disk")
}

// put writes a file on the board as durable does.
func (b *board) put(t *testing.T, file string, bytes []byte) {
	t.Helper()
	b.console.run(t, fmt.Sprintf("umask 077 && echo %s | busybox base64 -d >%s.new && sync && mv %s.new %s && sync",
		base64.StdEncoding.EncodeToString(bytes), file, file, file))
}

// aged is an identity at its end: the next start of the agent renews it.
func (g *gateway) aged(t *testing.T, pem string) []byte {
	t.Helper()
	chain, err := identity.ParseChain([]byte(pem))
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.ParseKey(contents(t, g.path("server/access/issuing.key")))
	if err != nil {
		t.Fatal(err)
	}
	issuing := &identity.Authority{Cert: chain[1], Key: key, Chain: chain[2:]}
	name, err := identity.ParseName(chain[0].URIs[0].String())
	if err != nil {
		t.Fatal(err)
	}
	aged, err := issuing.Issue(identity.Request{Name: name, Pub: chain[0].PublicKey, NotBefore: chain[0].NotBefore, NotAfter: time.Now().Add(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	return identity.MarshalChain(aged)
}
