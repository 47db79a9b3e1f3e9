//go:build linux

package lab

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBoardSurvivesPowerCuts kills QEMU, whose card keeps what it has been given (cache=writethrough), at random moments:
// from when the gateway begins to enroll, or its agent to run, until shortly after it is online, which is when it writes key,
// identity and state. Whatever the moment, the next boot gets on with it, and no code is spent twice.
func TestBoardSurvivesPowerCuts(t *testing.T) {
	t.Attr("id", "Q4")
	const cards, cutsEach = 2, 5
	r := newRig(t)
	siteDHCP(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	enrolling := 0
	for card := range cards {
		b := r.newBoard(t, imx6ul, fmt.Sprintf("press-%d", card+1))
		for range cutsEach {
			if b.cut(t, random) {
				enrolling++
			}
		}
		b.boot(t)
		b.awaitOnline(0)
		want := fmt.Sprintf("%s\n%s\nconfig\nlost+found\nstate\n0", b.uid, b.registered(t).SPKI)
		if got := strings.TrimSpace(b.console.run(t, whatIsThere)); got != want {
			t.Errorf("after %d cuts there is %q, want %q", cutsEach, got, want)
		}
		b.process.kill()
	}
	t.Attr("count", fmt.Sprintf("power cuts=%d", cards*cutsEach))
	t.Attr("count", fmt.Sprintf("of them while enrolling=%d", enrolling))
}

// whatIsThere prints identity and key, what the data partition holds (no provisioning file any more), and how often the
// file system complained. At the end would stand what an interrupted write left, except of a slot: that waits for the next
// Save, and the others are written again at the next start.
const whatIsThere = `hawser-agent identity show | sed -n 's/^\(uid\|spki sha256\)  *//p'; ls /data; dmesg | grep -ci 'ext4-fs error'; ls -A /data/state | grep durable | grep -v "^.state.[01].durable"; true`

// registered is what the infrastructure knows of the board.
func (b *board) registered(t *testing.T) (device struct {
	State string
	SPKI  string `json:"spki_sha256"`
}) {
	t.Helper()
	must(t, &device, "tech", hawser("hawser"), "--home", b.home, "device", "show", b.name, "--json")
	return device
}

// cut boots the board and cuts its power at a random moment, until shortly after it would be online: from when it begins to
// enroll, or else from when its agent begins. It says whether the board was enrolling then.
func (b *board) cut(t *testing.T, random *rand.Rand) (enrolling bool) {
	t.Helper()
	b.boot(t)
	within := 1500 * time.Millisecond
	if b.process.awaitEither("provision: enrolling", "state=boot") == 0 {
		within = 4 * time.Second
	}
	after := time.Duration(random.Int64N(int64(within)))
	<-time.After(after)
	b.process.kill()
	text := strings.TrimSpace(b.process.String())
	enrolling = strings.Contains(text, "provision: ") && !strings.Contains(text, "state=boot")
	t.Logf("%s: cut after %v, %q", b.name, after.Round(time.Millisecond), text[strings.LastIndex(text, "\n")+1:])
	return enrolling
}

// awaitEither returns the index of the first text that is printed.
func (p *process) awaitEither(texts ...string) int {
	p.t.Helper()
	limit := time.After(outer)
	for mark := 0; ; {
		lines, news := p.since(mark)
		for _, l := range lines {
			if i := slices.IndexFunc(texts, func(s string) bool { return strings.Contains(l.text, s) }); i >= 0 {
				return i
			}
		}
		mark += len(lines)
		select {
		case <-news:
		case <-limit:
			p.t.Fatalf("%s printed none of %q", p.cmd.Path, texts)
		}
	}
}
