package relay

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/server/gate"
	"hawser/server/grant"
	"hawser/transport"
	"hawser/transport/wire"
)

// echo sends random bytes and wants them back.
func echo(conn net.Conn, size int) error {
	sent := make([]byte, size)
	rand.Read(sent)
	if err := wire.Write(conn, wire.TypeEcho, sent); err != nil {
		return err
	}
	f, err := wire.Expect(conn, wire.TypeEcho)
	if err == nil && !bytes.Equal(f.Payload, sent) {
		err = errors.New("another payload came back")
	}
	return err
}

func TestEchoesComeBackUnchangedAndAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for _, cert := range []tls.Certificate{r.device(), r.user()} {
			conn := r.dial(t, cert)
			for n := range maxEchoes {
				must(t, echo(conn, 16+n*(1024-16)/(maxEchoes-1)))
			}
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("after %d echoes: %v, want the end", maxEchoes, err)
			}
		}
	})
}

func TestMeasuringEndsAfterFifteenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		conn := r.dial(t, r.device())
		began := time.Now()
		time.Sleep(joinTime - time.Second)
		must(t, echo(conn, 16))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || time.Since(began) != measureTime {
			t.Errorf("%v after %v, want the end after %v", err, time.Since(began), measureTime)
		}
	})
}

// TestMeasuringIsRefused plays each fault, and the same without it.
func TestMeasuringIsRefused(t *testing.T) {
	tests := []struct {
		name string
		want transport.Reason
		cert func(t *testing.T, r *rig) tls.Certificate
	}{
		{"no certificate", transport.NotEnrolled, func(*testing.T, *rig) tls.Certificate { return tls.Certificate{} }},
		{"wrong kind", transport.WrongKind, func(t *testing.T, r *rig) tls.Certificate {
			return r.issue(identity.RelayName("r2"), time.Hour)
		}},
		{"wrong root", transport.WrongRoot, func(t *testing.T, r *rig) tls.Certificate { return newInfra().device() }},
		{"expired", transport.Expired, func(t *testing.T, r *rig) tls.Certificate {
			defer time.Sleep(time.Minute)
			return r.issue(identity.UserName("plant", "anna"), time.Second)
		}},
		{"revoked", transport.Revoked, func(t *testing.T, r *rig) tls.Certificate {
			cert := r.device()
			r.server.pairing.revoke([]identity.SPKI{identity.CertSPKI(cert.Leaf)})
			return cert
		}},
		{"", "", func(t *testing.T, r *rig) tls.Certificate { return r.device() }},
	}
	t.Attr("id", "A1-refuse")
	t.Attr("cases", strconv.Itoa(len(tests)))
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				wantReason(t, echo(r.dial(t, c.cert(t, r)), 16), c.want)
			})
		})
	}
}

func TestJoinAfterAnEchoIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		device, user := r.device(), r.user()
		join := wire.Join{Grant: sign(t, grant.Signer(r.Grant), r.grant(wire.RoleRuntime, device, user, "s1"))}
		conn := r.dial(t, device)
		must(t, echo(conn, 16))
		must(t, wire.WriteJSON(conn, wire.TypeJoin, join))
		wantReason(t, answer(conn), transport.Protocol)
		// The grant is as good as it was.
		conn = r.joinWith(t, device, join)
		manager := r.join(t, user, r.grant(wire.RoleManager, user, device, "s1"))
		must(t, answer(conn))
		must(t, answer(manager))
	})
}

// TestMeasuringClientTakesNoStrangersPlace: it counts until the relay knows who
// it is, and not longer.
func TestMeasuringClientTakesNoStrangersPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.MaxJoining = 1 })
		for range 3 {
			must(t, echo(r.dial(t, r.device()), 16))
			synctest.Wait()
		}
		r.dial(t, r.device()) // says nothing
		synctest.Wait()
		if err := echo(r.dial(t, r.device()), 16); err == nil {
			t.Error("measured beside a stranger who has the only place")
		}
	})
}

// However many measure, they take a relay no more than their places; and to be told so, there are few.
func TestMeasuringIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.server.measuring = gate.New("measurements", gate.Limits{All: 2, Source: 2, Net: 2, Patience: 2 * time.Second}, nil, nil)
		r.server.refusals = gate.New("refusals", gate.Limits{All: 1, Source: 1, Net: 1, Patience: 2 * time.Second}, nil, nil)
		first, second := r.dial(t, r.device()), r.dial(t, r.device())
		must(t, echo(first, 16))
		must(t, echo(second, 16))
		told, cut := r.dial(t, r.device()), r.dial(t, r.device())
		wantReason(t, echo(told, 16), transport.Busy)
		if err := echo(cut, 16); err == nil || transport.ReasonOf(err) == transport.Busy {
			t.Errorf("%v, want the end without a word: there is one place to be told", err)
		}
		r.pair(t, "s1") // sessions need none of these
		time.Sleep(time.Second)
		must(t, echo(first, 16))
		time.Sleep(time.Second)
		third := r.dial(t, r.device()) // takes the place of the one that stands still
		must(t, echo(third, 16))
		must(t, echo(first, 16))
		if err := echo(second, 16); err == nil {
			t.Error("who stood still has his place as before")
		}
	})
}

// Also who is told at once that there is no place, and does not read it, takes no more than the places for that.
func TestRefusalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.server.joining = gate.New("joining", gate.Limits{All: 1, Source: 1, Net: 1, Patience: time.Minute}, nil, nil)
		r.server.refusals = gate.New("refusals", gate.Limits{All: 1, Source: 1, Net: 1, Patience: 3 * time.Second}, nil, nil)
		r.dial(t, r.device()) // says nothing
		synctest.Wait()
		r.dial(t, r.device()) // is told, and stays
		synctest.Wait()
		began := time.Now()
		if f, err := wire.Read(r.dial(t, r.device())); err == nil || time.Since(began) != 0 {
			t.Errorf("a third one reads %v after %v, want the end at once", f, time.Since(began))
		}
		time.Sleep(endTime)
		synctest.Wait()
		wantReason(t, answer(r.dial(t, r.device())), transport.Busy)
	})
}
