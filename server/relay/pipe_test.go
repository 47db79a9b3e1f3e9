package relay

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestBytesArriveInBothDirections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		runtime, manager := r.pair(t, "s1")
		up, down := random1MiB(), random1MiB()
		var wg sync.WaitGroup
		wg.Go(func() { send(t, manager, up) })
		wg.Go(func() { send(t, runtime, down) })
		wg.Go(func() { receive(t, runtime, up) })
		wg.Go(func() { receive(t, manager, down) })
		wg.Wait()
	})
}

// Nobody half-closes a line: the end of one side is that of both, after what is still under way.
func TestOtherDirectionHasTwoSecondsWhenOneIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		runtime, manager := r.pair(t, "s1")
		must(t, manager.CloseWrite())
		receive(t, runtime, nil)
		began := time.Now()
		time.Sleep(endTime / 2)
		_, err := runtime.Write([]byte("late"))
		must(t, err)
		receive(t, manager, []byte("late"))
		if took := time.Since(began); took != endTime {
			t.Errorf("the line ended after %v, want %v", took, endTime)
		}
	})
}

// TestStalledReceiverHoldsUpTheSender: what a relay takes from a sender is
// bounded by the buffers on the way, however long it goes on.
func TestStalledReceiverHoldsUpTheSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		runtime, manager := r.pair(t, "s1")
		var sent bytes.Buffer
		chunk := make([]byte, 8<<10)
		manager.SetWriteDeadline(time.Now().Add(time.Hour))
		for {
			rand.Read(chunk)
			n, err := manager.Write(chunk)
			sent.Write(chunk[:n])
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			must(t, err)
			if sent.Len() > 4<<20 {
				t.Fatal("4 MiB went into a pipe whose other end does not read")
			}
		}
		// All that was taken arrives when the receiver goes on.
		got := make([]byte, sent.Len()&^(len(chunk)-1))
		_, err := io.ReadFull(runtime, got)
		must(t, err)
		if !bytes.Equal(got, sent.Bytes()[:len(got)]) {
			t.Error("bytes have changed")
		}
	})
}

func TestPipeEndsForBothWhenOneSideIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		device, user := r.device(), r.user()
		joined := r.join(t, device, r.grant(wire.RoleRuntime, device, user, "s1"))
		elsewhere := netip.MustParseAddr("192.0.2.10")
		r.client = r.net.Host(elsewhere)
		other := r.join(t, user, r.grant(wire.RoleManager, user, device, "s1"))
		must(t, answer(joined))
		must(t, answer(other))
		runtime, _ := change(t)(joined, other)
		r.net.Cut(r.addr, elsewhere)
		began := time.Now()
		wantEnd(t, runtime)
		if took := time.Since(began); took != 0 {
			t.Errorf("it ended after %v, want at once", took)
		}
	})
}

func TestRevokedKeyCutsRunningPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		runtime, manager := r.pair(t, "s1")
		other, _ := r.pair(t, "s2")
		r.server.pairing.revoke([]identity.SPKI{r.holder(t, "s1")})
		wantEnd(t, runtime)
		wantEnd(t, manager)
		send(t, other, []byte("still here"))
		synctest.Wait()
		if log := r.log.String(); !strings.Contains(log, "reason=revoked") {
			t.Errorf("the log does not say why:\n%s", log)
		}
	})
}

func TestRevokedKeyCutsWaitingEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		device, user := r.device(), r.user()
		conn := r.join(t, device, r.grant(wire.RoleRuntime, device, user, "s1"))
		synctest.Wait()
		r.server.pairing.revoke([]identity.SPKI{identity.CertSPKI(device.Leaf)})
		wantReason(t, answer(conn), transport.Revoked)
	})
}

func TestEndSessionCutsOnlyThatSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		runtime, manager := r.pair(t, "s1")
		other, far := r.pair(t, "s2")
		r.server.pairing.endSession("s1", transport.Closed)
		wantEnd(t, runtime)
		wantEnd(t, manager)
		send(t, other, []byte("x"))
		receive(t, far, []byte("x"))
	})
}

// TestNothingCarriedIsLogged sends a canary through a pipe at log level debug.
func TestNothingCarriedIsLogged(t *testing.T) {
	const canary = "canary-5935"
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		runtime, manager := r.pair(t, "s1")
		send(t, manager, []byte(canary))
		receive(t, runtime, []byte(canary))
		manager.Close()
		runtime.Close()
		synctest.Wait()
		log := r.log.String()
		if strings.Contains(log, canary) {
			t.Errorf("the log holds what was carried:\n%s", log)
		}
		if !strings.Contains(log, "session over") {
			t.Errorf("the log does not tell of the session at all:\n%s", log)
		}
	})
}

func random1MiB() []byte {
	b := make([]byte, 1<<20)
	rand.Read(b)
	return b
}

func send(t *testing.T, conn *line, b []byte) {
	if _, err := conn.Write(b); err != nil {
		t.Errorf("send: %v", err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func receive(t *testing.T, conn *line, want []byte) {
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("receive: %v", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("received %d bytes that are not the %d sent", len(got), len(want))
	}
}

func wantEnd(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the pipe still carries")
	}
}

// holder is the key of the Runtime of a session.
func (r *rig) holder(t *testing.T, session string) identity.SPKI {
	t.Helper()
	pairs := r.server.pairing
	pairs.mu.Lock()
	defer pairs.mu.Unlock()
	e := pairs.ends[slot{session, 1, wire.RoleRuntime}]
	if e == nil {
		t.Fatalf("nobody sits in session %s", session)
	}
	return e.grant.Holder
}
