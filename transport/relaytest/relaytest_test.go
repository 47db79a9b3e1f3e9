package relaytest

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/memnet"
	"hawser/transport"
	"hawser/transport/record"
	"hawser/transport/wire"
)

// rig is a relay with the two ends of a session that are paired.
type rig struct {
	relay            *Relay
	runtime, manager *end
}

func newRig(t *testing.T, change func(*Relay)) *rig {
	t.Helper()
	pki, network := identitytest.New(time.Now()), memnet.New()
	addr := netip.MustParseAddr("192.0.2.1")
	r := &rig{relay: New(t, pki, network.Host(addr), "r1")}
	change(r.relay)
	host := network.Host(netip.MustParseAddr("192.0.2.9"))
	join := func(name identity.Name) *end {
		conn, err := host.DialContext(t.Context(), "tcp", netip.AddrPortFrom(addr, 443).String())
		if err != nil {
			t.Fatal(err)
		}
		under := record.New(conn)
		t.Cleanup(func() { under.Close() })
		c := tls.Client(under, &tls.Config{
			Certificates: []tls.Certificate{pki.Leaf(name, 0, time.Hour)}, InsecureSkipVerify: true,
			NextProtos: []string{transport.ALPNRelay}, MinVersion: tls.VersionTLS13,
		})
		if err := wire.WriteJSON(c, wire.TypeJoin, wire.Join{Grant: "g"}); err != nil {
			t.Fatal(err)
		}
		return &end{c, under, nil}
	}
	r.runtime, r.manager = join(identity.DeviceName("plant", identity.NewUID())), join(identity.UserName("plant", "anna"))
	for _, e := range []*end{r.runtime, r.manager} {
		if _, err := wire.Expect(e, wire.TypePaired); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// tlsRecord looks like one of TLS.
func tlsRecord(body string) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(body))), body...)
}

func say(t *testing.T, e *end, text string) {
	t.Helper()
	if err := wire.Write(e, wire.TypeData, []byte(text)); err != nil {
		t.Error(err)
	}
}

func leave(t *testing.T, e *end) {
	t.Helper()
	if err := wire.Write(e, wire.TypeSwitch, nil); err != nil {
		t.Error(err)
	}
	e.under.Shut()
}

func wantFrame(t *testing.T, e *end, kind wire.Type, text string) {
	t.Helper()
	f, err := wire.Read(e)
	if err != nil || f.Type != kind || string(f.Payload) != text {
		t.Errorf("got %#02x %q, %v, want %#02x %q", byte(f.Type), f.Payload, err, byte(kind), text)
	}
}

func wantRaw(t *testing.T, e *end, want ...[]byte) {
	t.Helper()
	b := make([]byte, len(bytes.Join(want, nil)))
	if _, err := io.ReadFull(e.under.Raw(), b); err != nil || !bytes.Equal(b, bytes.Join(want, nil)) {
		t.Errorf("got %q, %v, want %q", b, err, want)
	}
}

func TestBothDirectionsSwitchByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(*Relay) {})
		say(t, r.manager, "hello")
		leave(t, r.manager)
		r.manager.under.Raw().Write([]byte("raw"))
		wantFrame(t, r.runtime, wire.TypeData, "hello")
		wantFrame(t, r.runtime, wire.TypeSwitch, "")
		wantRaw(t, r.runtime, []byte("raw"))
		say(t, r.runtime, "answer") // still in the outer TLS
		leave(t, r.runtime)
		r.runtime.under.Raw().Write([]byte("more"))
		r.runtime.under.Close()
		wantFrame(t, r.manager, wire.TypeData, "answer")
		wantFrame(t, r.manager, wire.TypeSwitch, "")
		if b, err := io.ReadAll(r.manager.under.Raw()); string(b) != "more" || err != nil {
			t.Errorf("%q, %v, want what was sent and nothing of the outer TLS", b, err)
		}
	})
}

func TestCarryMayDoEvil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept []Piece
		r := newRig(t, func(r *Relay) {
			r.Carry = func(w Way, p Piece) []Piece {
				switch {
				case !w.ToRuntime:
					return []Piece{p}
				case p.Kind == Switch:
					return []Piece{p, {Kind: Data, B: []byte("behind it")}}
				case p.Kind == Raw && len(kept) == 0:
					kept = append(kept, p)
					return nil
				case p.Kind == Raw:
					return []Piece{p, kept[0], p, {Kind: End}}
				}
				return []Piece{p}
			}
		})
		leave(t, r.manager)
		one, two := tlsRecord("one"), tlsRecord("two")
		r.manager.under.Raw().Write(append(bytes.Clone(one), two...))
		wantFrame(t, r.runtime, wire.TypeSwitch, "")
		wantFrame(t, r.runtime, wire.TypeData, "behind it")
		wantRaw(t, r.runtime, two, one, two)
		if _, err := r.runtime.under.Raw().Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%v, want the end", err)
		}
	})
}

func TestTamperSeesBothPhases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(r *Relay) {
			r.Tamper = func(_ bool, b []byte) []byte { return bytes.ToUpper(b) }
		})
		say(t, r.manager, "frame")
		leave(t, r.manager)
		r.manager.under.Raw().Write([]byte("raw"))
		wantFrame(t, r.runtime, wire.TypeData, "FRAME")
		wantFrame(t, r.runtime, wire.TypeSwitch, "")
		wantRaw(t, r.runtime, []byte("RAW"))
		if n := r.relay.Carried(); n != len("frameraw") {
			t.Errorf("%d bytes carried", n)
		}
	})
}
