//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/api"
	"hawser/transport/api/apitest"
	"hawser/transport/wire"
)

// While the disk of the store is full, what needs a write is refused, in words, and what runs goes on. When there is
// room again everything works without a hand's turn.
func TestFullDiskRefusesAndHeals(t *testing.T) {
	t.Attr("id", "S-full")
	t.Attr("cases", "2")
	l := newLoad(t, "")
	l.server.stop()
	l.serveOnSmallDisk()
	attached := l.attach("hall 1")
	attached.second, _ = l.addClient("hall 2")
	waiting, status, code := l.add("waits")
	if status != http.StatusCreated {
		t.Fatalf("add: %d %s", status, code)
	}
	for round := range 2 {
		l.wantService()
		session := attached.open()
		before := l.complaints()
		filler := l.fill()
		l.wantFull(attached, session, waiting)
		if n := l.complaints() - before; n == 0 || n > 5 {
			t.Errorf("the log has %d lines of it:\n%s", n, l.server.log)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		l.wantService()
		l.awaitLog("the store works again", round+1)
		if code := l.check(); code != 0 {
			t.Errorf("check when there is room again: %d", code)
		}
		attached.wantAlive()
		attached.open()
		if status, code := l.ask(l.admin, "DELETE", "/api/v1/sessions/"+session, nil, nil); status != http.StatusNoContent {
			t.Errorf("end the session that outlived it: %d %s", status, code)
		}
	}
	if _, err := l.enroll(t.Context(), waiting); err != nil {
		t.Errorf("the code that was refused: %v", err)
	}
	if out, err := exec.Command("cp", "-a", l.seen("server/access/store"), l.path("copy")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.judge(l.openStore(store.Options{Dir: l.path("copy"), Node: "access1"}))
}

// complaints counts what the log warns of.
func (l *load) complaints() int {
	log := l.server.log.String()
	return strings.Count(log, "level=WARN") + strings.Count(log, "level=ERROR")
}

// awaitLog waits until the log has a text so often.
func (l *load) awaitLog(text string, n int) {
	l.t.Helper()
	limit := time.After(patience)
	for strings.Count(l.server.log.String(), text) < n {
		select {
		case <-limit:
			l.t.Fatalf("the log does not say %q", text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// diskBytes is more than what check wants to be free.
const diskBytes = 80 << 20

// serveOnSmallDisk starts the server with its store on a disk of its own, which no other process sees.
func (l *load) serveOnSmallDisk() {
	l.t.Helper()
	dir := l.path("server/access/store")
	script := `cp -a "$1" "$1.first" && mount -t tmpfs -o mode=0700,size=$2 none "$1" && cp -a "$1.first/." "$1" && exec "$3" run --config "$4"`
	l.server = watch(l.t, exec.Command("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh",
		dir, strconv.Itoa(diskBytes), program(l.t, "hawser-server"), l.path("server/server.yaml")))
	l.server.line("ready ")
}

// seen is a path as the server sees it.
func (l *load) seen(name string) string {
	return filepath.Join("/proc", strconv.Itoa(l.server.cmd.Process.Pid), "root", l.path(name))
}

// fill leaves no room on the server's disk.
func (l *load) fill() (filler string) {
	l.t.Helper()
	filler = l.seen("server/access/store/filler")
	f, err := os.Create(filler)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 { // to the last byte
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			l.t.Fatal(err)
		}
	}
	return filler
}

// check runs `hawser-server check` where the server runs, and returns its exit code.
func (l *load) check() int {
	l.t.Helper()
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(l.server.cmd.Process.Pid), "--user", "--mount", "--preserve-credentials",
		program(l.t, "hawser-server"), "check", "--config", l.path("server/server.yaml"))
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		l.t.Fatal(err)
	}
	l.t.Logf("check: %d\n%s", cmd.ProcessState.ExitCode(), out)
	return cmd.ProcessState.ExitCode()
}

// wantFull wants that nothing is written, and that nothing else suffers.
func (l *load) wantFull(attached *online, session string, waiting apitest.Device) {
	l.t.Helper()
	// SQLite goes on for as long as its log has room.
	for try := 0; ; try++ {
		_, status, reason := l.add("full " + identity.NewUID().String()[:8])
		if status == http.StatusTooManyRequests {
			break
		}
		if status != http.StatusCreated || try > 20_000 {
			l.t.Fatalf("after %d devices on a full disk: %d %s", try, status, reason)
		}
	}
	for range 100 {
		for _, ask := range []struct {
			method, path string
			body         any
		}{
			{"POST", "/api/v1/devices", l.domain.Device("full").Request},
			{"POST", "/api/v1/sessions", api.SessionRequest{Device: attached.uid, SessionVersion: wire.SessionVersion}},
		} {
			if status, reason := l.ask(l.admin, ask.method, ask.path, ask.body, nil); reason != transport.Busy {
				l.t.Fatalf("%s %s: %d %s", ask.method, ask.path, status, reason)
			}
		}
		if _, err := l.enroll(l.t.Context(), waiting); transport.ReasonOf(err) != transport.Busy || !strings.Contains(fmt.Sprint(err), "disk") {
			l.t.Fatalf("enroll: %v", err)
		}
	}
	if status, reason := l.ask(l.admin, "GET", "/api/v1/devices", nil, nil); status != http.StatusOK {
		l.t.Errorf("list: %d %s", status, reason)
	}
	for range 30 { // whose records are dropped; that no join-state can be written may be told in place of the welcome
		if err := l.welcome(attached.second); err != nil && transport.ReasonOf(err) != transport.Busy {
			l.t.Fatal(err)
		}
	}
	attached.wantAlive()
	if l.check() == 0 {
		l.t.Error("check finds nothing wrong")
	}
}

// online is a device with its control connection.
type online struct {
	*load
	uid    string
	second *accesstest.Client // another device
	pongs  chan struct{}
	ended  chan error
	ping   func() error
}

// addClient makes a device and enrolls it.
func (l *load) addClient(name string) (c *accesstest.Client, uid string) {
	l.t.Helper()
	added, status, code := l.add(name)
	if status != http.StatusCreated {
		l.t.Fatalf("add: %d %s", status, code)
	}
	c, err := l.enroll(l.t.Context(), added)
	if err != nil {
		l.t.Fatal(err)
	}
	return c, added.UID.String()
}

func (l *load) attach(name string) *online {
	l.t.Helper()
	c, uid := l.addClient(name)
	conn, err := l.prelude(context.Background(), c, wire.TypeHello, hello(c))
	if err != nil {
		l.t.Fatal(err)
	}
	o := &online{load: l, uid: uid, pongs: make(chan struct{}, 1), ended: make(chan error, 1)}
	o.ping = func() error { return wire.Write(conn, wire.TypePing, wire.Ping(20*time.Minute)) }
	go func() { // ends with the connection
		for {
			f, err := wire.Read(conn)
			if err == nil && f.Type == wire.TypeRefuse {
				err = f.Refusal()
			}
			if err != nil {
				o.ended <- err
				return
			}
			var offer wire.Offer
			switch {
			case f.Type == wire.TypeOffer && f.Decode(&offer) == nil:
				wire.WriteJSON(conn, wire.TypeOfferAck, wire.OfferAck{Session: offer.Session})
			case f.Type == wire.TypePong:
				o.pongs <- struct{}{}
			}
		}
	}()
	l.t.Cleanup(func() { conn.NetConn().Close(); <-o.ended })
	o.wantAlive()
	return o
}

// wantAlive wants an answer on the connection that there always was.
func (o *online) wantAlive() {
	o.t.Helper()
	if err := o.ping(); err != nil {
		o.t.Fatal(err)
	}
	select {
	case <-o.pongs:
	case err := <-o.ended:
		o.ended <- err
		o.t.Fatalf("the device is not attached any more: %v", err)
	case <-time.After(patience):
		o.t.Fatal(io.ErrNoProgress)
	}
}

// open opens a session, when the relay of the same process has come back.
func (o *online) open() (session string) {
	o.t.Helper()
	limit := time.After(patience)
	for {
		var answer api.SessionAnswer
		status, code := o.ask(o.admin, "POST", "/api/v1/sessions", api.SessionRequest{Device: o.uid, SessionVersion: wire.SessionVersion}, &answer)
		if status == http.StatusCreated {
			return answer.Offer.Session
		}
		select {
		case <-limit:
			o.t.Fatalf("open: %d %s", status, code)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
