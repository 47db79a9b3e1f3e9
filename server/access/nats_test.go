package access

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"hawser/transport"
	"hawser/transport/wire"
)

// natsRig is a real NATS server on a loopback port, which can be stopped and
// started again on its files.
type natsRig struct {
	t      *testing.T
	dir    string
	port   int
	server *server.Server
}

// rigHost is a loopback address whose ports nobody else takes while a rig is
// stopped.
const rigHost = "127.77.0.1"

func startNATS(t *testing.T) *natsRig {
	t.Helper()
	r := &natsRig{t: t, dir: t.TempDir(), port: server.RANDOM_PORT}
	r.start()
	t.Cleanup(r.stop)
	return r
}

func (r *natsRig) start() {
	r.t.Helper()
	var err error
	r.server, err = server.NewServer(&server.Options{
		ServerName: "nats", Host: rigHost, Port: r.port, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: r.dir, SyncAlways: true,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.server.Start()
	if !r.server.ReadyForConnections(30 * time.Second) {
		r.t.Fatal("the NATS server does not start")
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(r.server.ClientURL(), "nats://"), ":")
	fmt.Sscan(port, &r.port)
}

func (r *natsRig) stop() {
	r.server.Shutdown()
	r.server.WaitForShutdown()
}

func (r *natsRig) url() string { return fmt.Sprintf("nats://%s:%d", rigHost, r.port) }

// open returns a store and a bus of their own connection.
func (r *natsRig) open() (Store, Bus) {
	r.t.Helper()
	s, b, err := OpenNATS(NATS{URLs: []string{r.url()}, Name: "test"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { s.Close() })
	return s, b
}

// until tries again and again, without a pause of its own, for what takes an
// unknown but short time.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		if done() {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// awaitLoss waits until the client library knows that its server is gone; what
// was on its way then waits for its time-out.
func (s *jetStream) awaitLoss(t *testing.T) {
	until(t, "the loss is noticed", func() bool { return !s.conn.IsConnected() })
}

// What was acknowledged is there when the NATS server is back, on the same
// connection. Meanwhile every call says soon who is away.
func TestNATSStoreSurvivesARestartOfItsServer(t *testing.T) {
	rig := startNATS(t)
	s, _ := rig.open()
	ctx := t.Context()
	revision, err := s.Create(ctx, bucketDevices, "d1", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(ctx, bucketPresence, "device.d1", []byte("here")); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(ctx, "a1", "plant", []byte("r1")); err != nil {
		t.Fatal(err)
	}
	rig.stop()
	s.(*jetStream).awaitLoss(t)
	_, getErr := s.Get(ctx, bucketDevices, "d1")
	_, createErr := s.Create(ctx, bucketDevices, "d2", []byte("two"))
	_, listErr := s.List(ctx, bucketDevices, "")
	_, recordsErr := s.Records(ctx, "", "", 1)
	_, checkErr := s.Check(ctx)
	for name, err := range map[string]error{"get": getErr, "create": createErr, "append": s.Append(ctx, "a1", "", nil),
		"list": listErr, "records": recordsErr, "check": checkErr} {
		if !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), fmt.Sprint(rigHost, ":", rig.port)) {
			t.Errorf("%s while it is away: %v", name, err)
		}
	}
	rig.start()
	until(t, "get", func() bool { _, err := s.Get(ctx, bucketDevices, "d1"); return err == nil })
	if e, err := s.Get(ctx, bucketDevices, "d1"); err != nil || string(e.Value) != "one" || e.Revision != revision {
		t.Errorf("%+v, %v", e, err)
	}
	if r, err := s.Records(ctx, "", "", 9); err != nil || len(r) != 1 {
		t.Errorf("%q, %v", r, err)
	}
	// The volatile ones are empty, and work.
	if _, err := s.Get(ctx, bucketPresence, "device.d1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := s.Update(ctx, bucketNodes, "a1", nil, 7); !errors.Is(err, ErrConflict) {
		t.Errorf("%v", err)
	}
	if _, err := s.Create(ctx, bucketPresence, "device.d1", []byte("here")); err != nil {
		t.Error(err)
	}
}

func TestNATSStoreSaysWhatItFound(t *testing.T) {
	rig := startNATS(t)
	s, _ := rig.open()
	text, err := s.Check(t.Context())
	if err != nil || !strings.Contains(text, "it does not tell") || !strings.Contains(text, "sync_interval: always") || !strings.Contains(text, rig.url()) {
		t.Errorf("%q, %v", text, err)
	}
	for _, bucket := range allBuckets() {
		stream, err := s.(*jetStream).js.Stream(t.Context(), "KV_"+bucket)
		if err != nil {
			t.Fatal(err)
		}
		if c := stream.CachedInfo().Config; c.AllowDirect || c.MaxAge != keepFor(bucket) {
			t.Errorf("%s: %+v", bucket, c)
		}
	}
}

func TestNATSThatIsNotThere(t *testing.T) {
	rig := startNATS(t)
	rig.stop()
	_, _, err := OpenNATS(NATS{URLs: []string{"nats://u:secret@" + strings.TrimPrefix(rig.url(), "nats://")}})
	if !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), fmt.Sprint(rig.port)) || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
	bad := filepath.Join(t.TempDir(), "nothing.creds")
	if _, _, err := OpenNATS(NATS{URLs: []string{rig.url()}, Credentials: bad}); err == nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// A record in nodes is gone when its lease is over; writing it anew prolongs it.
func TestNodesForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ctx := NewMemory(), context.Background()
		revision := must(s.Create(ctx, bucketNodes, "a1", nil))
		time.Sleep(leaseTime - 1)
		revision = must(s.Update(ctx, bucketNodes, "a1", nil, revision))
		time.Sleep(leaseTime - 1)
		if _, err := s.Get(ctx, bucketNodes, "a1"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := s.Get(ctx, bucketNodes, "a1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v", err)
		}
		if _, err := s.Update(ctx, bucketNodes, "a1", nil, revision); !errors.Is(err, ErrConflict) {
			t.Errorf("%v", err)
		}
		must(s.Create(ctx, bucketNodes, "a1", nil))
	})
}

// Two Access Servers on a real NATS server, which is restarted while they run:
// sessions go on being brokered, and nothing acknowledged is lost.
func TestTwoAccessServersOnARealNATSServer(t *testing.T) {
	rig := startNATS(t)
	cordTo := func() *cord {
		s, b := rig.open()
		return &cord{Store: s, bus: b}
	}
	p := pairOver(t, cordTo(), cordTo())
	defer p.end()
	p.runtime.beQuiet()
	p.relay.beQuiet()
	at := p.here()
	ready := func() bool {
		var v deviceView
		status := at.call(p.admin, "GET", "/api/v1/devices/press%201", nil, &v)
		return status == 200 && v.Online && len(at.poolNames()) == 1
	}
	until(t, "the second knows device and relay", ready)
	_, first := at.session()

	rig.stop()
	for _, c := range []*cord{p.cord, p.secondCord} {
		c.Store.(*jetStream).awaitLoss(t)
	}
	if got := <-at.open(p.admin, "press 1"); got.code != transport.Busy {
		t.Errorf("a session without a store: %+v", got)
	}
	p.runtime.beQuiet() // its control connection is up
	rig.start()
	until(t, "the second is well again", ready)
	_, second := at.session()
	for _, o := range []wire.Offer{first, second} {
		if r := at.record(o.Session); r.Ended != nil || r.Relay != "r1" {
			t.Errorf("%+v", r)
		}
	}
	records := must(readAudit(t.Context(), at.cfg.Store, "", "", 1000))
	if err := VerifyAudit(records); err != nil || len(records) < 8 {
		t.Errorf("%d records, %v", len(records), err)
	}

	p.crash()
	at.runtime = at.control(p.device, hello("01"))
	defer at.runtime.Close()
	done := at.move(p.admin, first.Session, 1)
	at.consent("")
	if got := <-done; got.status != 200 || got.offer.Epoch != 2 {
		t.Errorf("moved at the second: %+v", got)
	}
}
