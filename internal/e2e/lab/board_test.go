//go:build linux

package lab

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// The board's key switch and lights. Its light is that of a card slot; the kernel has no other on this board.
const (
	switchChip, switchLine = 4, 5
	statusLED              = "/sys/class/leds/mmc1::"
)

// TestBoard boots the image of the emulated i.MX6UL, which takes its time, and looks at it from all sides, one after the other.
func TestBoard(t *testing.T) {
	r := newRig(t)
	siteDHCP(t)
	startClock(t, "access1")
	b := r.newBoard(t, imx6ul, "press-4", "lan 192.168.10.1/24",
		fmt.Sprintf("agent key_switch: {chip: /dev/gpiochip%d, line: %d, allow: closed}", switchChip, switchLine),
		`agent leds: {status: "mmc1::"}`)
	firewall(t, "open", "5935", "--others", "drop")
	startCommand(t, onHost(t, "plc1", "modbus")).await(0, "listening")
	b.boot(t)
	for _, part := range []struct {
		name string
		test func(*board, *testing.T)
	}{
		{"boots at 1970 and is online", (*board).firstBoot},
		{"key switch locks and lights tell", (*board).keySwitch},
		{"technician reads the PLC", (*board).readPLC},
		{"idles in little memory and writes nothing", (*board).idle},
		{"serves 20 streams in little memory", (*board).streams},
		{"works over 600 ms and 5 % loss", (*board).badLink},
		{"reboots as the same", (*board).reboot},
		{"is reset by its watchdog", (*board).watchdog},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.test(b, t) }) {
			return // what follows builds on it
		}
	}
}

// TestBoardOf64Bits boots the image for arm64, where everything else is the same.
func TestBoardOf64Bits(t *testing.T) {
	t.Attr("id", "Q1")
	r := newRig(t)
	siteDHCP(t)
	b := r.newBoard(t, arm64, "press-4")
	startCommand(t, onHost(t, "plc1", "modbus")).await(0, "listening")
	b.boot(t)
	b.awaitOnline(0)
	b.readPLC(t)
	if n := b.enrollments(t); n != 1 {
		t.Errorf("%d enrollments", n)
	}
}

// startClock has a host of the infrastructure answer SNTP, as it should: a gateway asks it first.
func startClock(t *testing.T, host string) {
	t.Helper()
	start(t, host, "chronyd", "-d", "-x", "local stratum 2", "allow", "user root", "cmdport 0", "bindcmdaddress /",
		"pidfile "+t.TempDir()+"/pid").await(0, "starting")
}

// firstBoot is from the card as it was flashed, with a provisioning file.
func (b *board) firstBoot(t *testing.T) {
	t.Attr("id", "Q1")
	const most = 20 * time.Second
	took := b.awaitOnline(0)
	b.watch.Within(t, "online after the boot,", took, most)
	t.Attr("count", fmt.Sprintf("guest ms from boot to online=%d", took.Milliseconds()))
	armed := b.process.await(0, "hardware watchdog armed").text
	if !strings.Contains(armed, "time=1970-01-01T00:00:") {
		t.Errorf("it has not begun in 1970: %s", armed)
	}
	stepped := b.process.await(0, "system clock follows").text
	// On a board that gets little of the processor, signed time may come before the answers of the time servers.
	if log := b.process.String(); !strings.Contains(stepped, "does=step") ||
		!strings.Contains(log, "clock state=plausible source=sntp") && !strings.Contains(log, "clock state=authentic") {
		t.Errorf("the clock was not set: %s", stepped)
	}
	const off = 30 * time.Second // an emulated board that gets little of the processor loses seconds
	var seconds int64
	asked := time.Now()
	_, err := fmt.Sscan(b.console.run(t, "date +%s"), &seconds)
	if says := time.Unix(seconds, 0); err != nil || says.Before(asked.Add(-off)) || says.After(time.Now().Add(off)) {
		t.Errorf("the board's clock says %v: %v", says, err)
	}
	for command, want := range map[string]string{
		"cat /etc/resolv.conf":                       "nameserver " + describe(t).Hosts["dns"][0].String(),
		"cat /run/hawser/ntp":                        describe(t).Hosts["time"][0].String(),
		"ls /data":                                   "config\nlost+found\nstate",
		"hawser-agent status | grep access":          "access    ccas1.keb.de (203.0.113.11) port 5935, direct",
		"touch /bin/x 2>&1; touch /etc/x 2>&1; true": "touch: /bin/x: Read-only file system\ntouch: /etc/x: Read-only file system",
		"stat -c %a /data/state /data/state/*.pem":   "700\n600\n600",
	} {
		if got := strings.TrimSpace(b.console.run(t, command)); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}

// turn turns the key: QEMU sets the level of the line from outside, as a switch does.
func (b *board) turn(t *testing.T, closed bool) {
	t.Helper()
	level := 0
	if closed {
		level = 1
	}
	if err := b.qtest(fmt.Sprintf("set_irq_in /machine/soc/gpio%d unnamed-gpio-in %d %d", switchChip, switchLine, level)); err != nil {
		t.Fatal(err)
	}
}

// light returns what the status light does: its trigger, and for how long it is on and off.
func (b *board) light(t *testing.T) string {
	t.Helper()
	text := b.console.run(t, `cd "`+statusLED+`"; sed 's/.*\[\(.*\)\].*/\1/' trigger; cat delay_on delay_off 2>/dev/null || cat brightness`)
	return strings.Join(strings.Fields(text), " ")
}

func (b *board) awaitLight(t *testing.T, want string) {
	t.Helper()
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	got := ""
	for until := time.Now().Add(outer); time.Now().Before(until); <-poll.C {
		if got = b.light(t); got == want {
			return
		}
	}
	t.Errorf("the light: %q, want %q", got, want)
}

// keySwitch begins with the key as it is at the start, open, and leaves it closed.
func (b *board) keySwitch(t *testing.T) {
	t.Attr("id", "Q7")
	t.Attr("cases", "4")
	b.awaitLight(t, "timer 100 2900") // locked
	refused := finish(t, "tech", hawser("hawser"), "--home", b.home, "connect", b.name, "-L", "0:"+net.JoinHostPort(plc(t), "502"))
	if refused.code != 4 || !strings.Contains(refused.stderr, "locked") {
		t.Errorf("with the key open: exit %d, %s", refused.code, refused.stderr)
	}
	b.turn(t, true)
	b.awaitLight(t, "none 255")
	p, _ := b.connect(t, "0:"+net.JoinHostPort(plc(t), "502"))
	b.awaitLight(t, "timer 900 100") // somebody is connected
	b.turn(t, false)
	p.wait()
	b.awaitLight(t, "timer 100 2900")
	b.turn(t, true)
	b.awaitLight(t, "none 255")
}

// poll reads the PLC's registers once through a session.
func poll(t *testing.T, address string, patience int) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	text := must(t, nil, "tech", "mbpoll", "-m", "tcp", "-p", port, "-a", "1", "-1", "-q", "-t", "4", "-r", "1", "-c", "4", "-o", fmt.Sprint(patience), host).stdout
	for _, want := range []string{"[1]: \t11", "[2]: \t22", "[3]: \t33", "[4]: \t44"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
}

func (b *board) readPLC(t *testing.T) {
	t.Attr("id", "Q1")
	_, addrs := b.connect(t, "0:"+net.JoinHostPort(plc(t), "502"))
	poll(t, addrs[0], 5)
}

// reboot is by the board's own will: nothing is enrolled anew, for the file with the code is gone, and one that is found
// beside an identity does nothing.
func (b *board) reboot(t *testing.T) {
	t.Attr("id", "Q2")
	key := b.console.run(t, "sha256sum /data/state/device.key /data/state/identity.pem")
	mark, up := b.process.mark(), b.console.mark()
	b.console.run(t, "echo code 0000-0000 >/data/provision; sync; reboot")
	b.console.awaitUp(t, up)
	took := b.awaitOnline(mark)
	t.Logf("online %v after the boot", took)
	if again := b.console.run(t, "sha256sum /data/state/device.key /data/state/identity.pem"); again != key {
		t.Errorf("key and identity were %s, are %s", key, again)
	}
	lines, _ := b.process.since(mark)
	for _, l := range lines {
		if strings.Contains(l.text, "enroll") {
			t.Errorf("the second boot says %q", l.text)
		}
	}
	b.console.run(t, "test ! -e /data/provision")
	if n := b.enrollments(t); n != 1 {
		t.Errorf("the infrastructure has %d enrollments of it", n)
	}
}

// enrollments counts those of the board in the infrastructure's journal.
func (b *board) enrollments(t *testing.T) (n int) {
	t.Helper()
	var entries []struct{ Action, Object, Result string }
	must(t, &entries, "tech", hawser("hawser"), "--home", b.home, "audit", "--json")
	for _, e := range entries {
		if e.Action == "enroll" && strings.Contains(e.Object, b.uid) && e.Result == "ok" {
			n++
		}
	}
	return n
}

// watchdog stops the agent in a way that it cannot notice.
func (b *board) watchdog(t *testing.T) {
	t.Attr("id", "Q3")
	mark, up := b.process.mark(), b.console.mark()
	b.console.run(t, "killall -STOP hawser-agent")
	stopped := time.Now()
	b.console.awaitUp(t, up)
	t.Logf("up again %v after it was stopped", time.Since(stopped))
	if took := b.awaitOnline(mark); took > time.Since(stopped) {
		t.Errorf("the board runs since %v: it was not reset", took)
	}
	t.Attr("count", fmt.Sprintf("s until the watchdog had the board up again=%d", int(time.Since(stopped).Seconds())))
}

// badLink is a satellite: the board's own queue makes what it sends late, and loses some.
func (b *board) badLink(t *testing.T) {
	t.Attr("id", "Q5")
	b.console.run(t, "insmod /lib/test-sch_netem.ko && guest netem eth0 600ms 5")
	defer b.console.run(t, "guest netem eth0 0ms 0")
	_, addrs := b.connect(t, "0:"+net.JoinHostPort(plc(t), "502"))
	began := time.Now()
	const reads = 5
	for range reads {
		poll(t, addrs[0], 10)
	}
	each := time.Since(began) / reads
	t.Attr("cases", fmt.Sprint(reads))
	t.Logf("a read with its connection takes %v", each)
	if each < 600*time.Millisecond {
		t.Errorf("a read takes %v: the link is not slow", each)
	}
}
