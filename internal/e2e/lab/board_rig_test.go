//go:build linux

package lab

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/e2e/pace"
)

// The boards of scripts/image that are tested.
const (
	imx6ul = "mcimx6ul-evk"
	arm64  = "arm64-virt"
)

const moduleRoot = "../../.."

// images are those of a whole run, by board: building one takes a while.
var images sync.Map

// imageOf builds the image of a board, and its variant for tests: the same root with a command line on the second serial
// port, and the gateway in 32 MiB of memory.
func imageOf(t *testing.T, name string) (dir string) {
	t.Helper()
	build, _ := images.LoadOrStore(name, sync.OnceValues(func() (string, error) { return buildImage(name) }))
	dir, err := build.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func buildImage(name string) (string, error) {
	dir, err := os.MkdirTemp(os.Getenv("LAB_DIR"), "image-")
	if err != nil {
		return "", err
	}
	image := func(args ...string) error {
		return command(append([]string{"go", "run", "./scripts/image"}, args...)...)
	}
	if err := image("-target", name, "-out", dir); err != nil || name != imx6ul {
		return dir, err
	}
	overlay := filepath.Join(dir, "overlay")
	if err := command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", overlay+"/bin/guest", "./internal/e2e/lab/guest"); err != nil {
		return dir, err
	}
	if err := copyTestFiles(overlay); err != nil {
		return dir, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "initrd.gz"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "test.gz"), text, 0o644)
	}
	if err == nil {
		err = image("-overlay", overlay, filepath.Join(dir, "test.gz"))
	}
	return dir, err
}

// command runs something of the repository's, for the board where that matters.
func command(args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = moduleRoot
	cmd.Env = os.Environ()
	if args[1] == "build" {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0", "GOARCH=arm", "GOARM=7")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// The parts of the kernel that only tests need, by their places in the package, each after those it needs.
var testDrivers = []string{"net/sched/sch_netem.ko", "drivers/block/brd.ko", "drivers/md/dm-mod.ko", "drivers/md/dm-log-writes.ko"}

// copyTestFiles fills the variant's overlay.
func copyTestFiles(overlay string) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	for _, driver := range testDrivers {
		found, _ := filepath.Glob(filepath.Join(cache, "hawser", "image", "armhf", "lib", "modules", "*", "kernel", driver))
		if len(found) != 1 {
			return fmt.Errorf("%s: %q", driver, found)
		}
		if err := install(found[0], filepath.Join(overlay, "lib", "test-"+filepath.Base(driver)), 0o644); err != nil {
			return err
		}
	}
	// A disk to record: small, because each of its states will be written anew.
	disk := filepath.Join(overlay, "lib", "test-disk")
	if err := command("mke2fs", "-q", "-t", "ext4", "-b", "1024", disk, "6M"); err != nil {
		return err
	}
	if err := command("gzip", disk); err != nil {
		return err
	}
	scripts, err := filepath.Glob("testdata/board/*")
	if err != nil {
		return err
	}
	for _, from := range scripts {
		to := "sbin"
		if filepath.Base(from) == "inittab" {
			to = "etc"
		}
		if err := install(from, filepath.Join(overlay, to, filepath.Base(from)), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func install(from, to string, perm os.FileMode) error {
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, perm)
}

// board is an emulated board in the place of the lab's gateway, with a card of its own.
type board struct {
	*gateway
	image, card string
	process     *process    // QEMU; its output is the board's console
	console     *console    // nil without the test variant
	levers      string      // socket on which QEMU takes what is done to the board from outside
	watch       *pace.Watch // since it was switched on
}

// newBoard makes a card and takes the lab's own gateway off the wires. The site has a DHCP server meanwhile.
func (r *rig) newBoard(t *testing.T, target, name string, more ...string) *board {
	t.Helper()
	b := &board{gateway: r.addDevice(name), image: imageOf(t, target), card: filepath.Join(r.dir, name+".img")}
	trust := string(contents(t, r.root))
	if target == arm64 { // the two ways to say whom it may trust differ in nothing else
		trust = "pin " + r.pin(t)
	}
	lines := append([]string{"access " + accessName, "time time.example", "code " + b.code, trust}, more...)
	file := filepath.Join(r.dir, name+".provision")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "cp", "--sparse=always", filepath.Join(b.image, "card.img"), b.card)
	if err := command("go", "run", "./scripts/image", "-provision", file, b.card); err != nil {
		t.Fatal(err)
	}
	return b
}

// pin is the sum of the root's public key.
func (r *rig) pin(t *testing.T) string {
	t.Helper()
	roots, err := identity.ParseRoots(contents(t, r.root))
	if err != nil {
		t.Fatal(err)
	}
	return identity.CertSPKI(roots.Certificates()[0]).String()
}

// siteDHCP is the site's DHCP server; it tells of the lab's resolver and time server. And the board's wires are taken away
// at the end.
func siteDHCP(t *testing.T) *process {
	t.Helper()
	d := describe(t)
	leases := filepath.Join(t.TempDir(), "leases")
	p := start(t, "site", "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=site", "--bind-interfaces", "--no-ping",
		"--dhcp-authoritative", "--dhcp-range=10.20.0.50,10.20.0.99,1h", "--dhcp-leasefile="+leases, "--user=", "--group=",
		fmt.Sprint("--dhcp-option=3,", d.Hosts["site"][2]), fmt.Sprint("--dhcp-option=6,", d.Hosts["dns"][0]), fmt.Sprint("--dhcp-option=42,", d.Hosts["time"][0]))
	p.await(0, "DHCP, sockets bound")
	t.Cleanup(func() {
		for _, network := range []string{"site", "lan"} {
			_ = exec.Command("ip", "link", "del", "board-"+network).Run() // a test may have ended before there was one
			run(t, "lab", "link", "device-"+network, "up")
		}
	})
	return p
}

// boot switches the board on.
func (b *board) boot(t *testing.T, args ...string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "serial")
	b.levers = filepath.Join(t.TempDir(), "levers")
	initrd := filepath.Join(b.image, "test.gz")
	if _, err := os.Stat(initrd); err != nil {
		initrd = filepath.Join(b.image, "initrd.gz")
	} else {
		args = append(args, "-serial", "unix:"+socket+",server=on,wait=off", "-qtest", "unix:"+b.levers+",server=on,wait=off", "-qtest-log", "none")
	}
	cmd := exec.Command(filepath.Join(moduleRoot, "scripts/qemu"), append([]string{b.image}, args...)...)
	cmd.Env = append(os.Environ(), "CARD="+b.card, "INITRD="+initrd)
	b.watch = watchLab()
	b.process, b.console = startCommand(t, cmd), nil
	if filepath.Base(initrd) == "test.gz" {
		b.console = openConsole(t, socket)
	}
}

// awaitOnline returns how long after its start the board was online, by its own clock.
func (b *board) awaitOnline(mark int) time.Duration {
	b.t.Helper()
	b.process.await(mark, "online "+b.uid)
	var seconds float64
	if b.console != nil {
		text := b.console.run(b.t, "cat /proc/uptime")
		if _, err := fmt.Sscan(text, &seconds); err != nil {
			b.t.Fatalf("uptime %q: %v", text, err)
		}
	}
	return time.Duration(seconds * float64(time.Second))
}

// qtest gives QEMU one command of its test protocol, which moves the board's lines from outside.
func (b *board) qtest(text string) error {
	conn, err := net.Dial("unix", b.levers)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(outer)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, text); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && answer != "OK\n" {
		err = fmt.Errorf("%s: %s", text, answer)
	}
	return err
}

// console is the command line of the test variant.
type console struct {
	*output
	conn net.Conn
	id   int
}

// openConsole connects when QEMU has made the socket. The reading ends with QEMU.
func openConsole(t *testing.T, socket string) *console {
	t.Helper()
	c := &console{output: &output{news: make(chan struct{})}}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for limit := time.After(outer); ; {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			c.conn = conn
			go c.read(conn)
			t.Cleanup(func() { conn.Close() })
			return c
		}
		select {
		case <-poll.C:
		case <-limit:
			t.Fatal(err)
		}
	}
}

// answerOf is one line of JSON on the console.
type answerOf struct {
	ID, Code int
	Command  string `json:",omitempty"`
	Output   string `json:",omitempty"`
}

// awaitUp returns when the board, after a mark, takes commands.
func (c *console) awaitUp(t *testing.T, mark int) { t.Helper(); c.await(t, mark, -1) }

func (c *console) await(t *testing.T, mark, id int) (a answerOf) {
	t.Helper()
	for limit := time.After(5 * outer); ; {
		lines, news := c.since(mark)
		for _, l := range lines {
			if i := strings.Index(l.text, "{"); i >= 0 && json.Unmarshal([]byte(l.text[i:]), &a) == nil && a.ID == id && a.Command == "" {
				return a
			}
		}
		mark += len(lines)
		select {
		case <-news:
		case <-limit:
			t.Fatalf("the board does not answer command %d", id)
		}
	}
}

// try runs a command on the board to its end.
func (c *console) try(t *testing.T, text string) answerOf {
	t.Helper()
	c.id++
	mark := c.mark()
	b, err := json.Marshal(answerOf{ID: c.id, Command: text})
	if err == nil {
		_, err = c.conn.Write(append(b, '\n'))
	}
	if err != nil {
		t.Fatal(err)
	}
	return c.await(t, mark, c.id)
}

// run is try for a command that must succeed; it returns what that printed.
func (c *console) run(t *testing.T, text string) string {
	t.Helper()
	a := c.try(t, text)
	if a.Code != 0 {
		t.Fatalf("on the board: %s: exit %d: %s", text, a.Code, a.Output)
	}
	return a.Output
}
