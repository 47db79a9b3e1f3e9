package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// message returns a new value for the JSON payload of a type, nil for a type without one.
func message(t Type) any {
	switch t {
	case TypeEnroll:
		return new(Enroll)
	case TypeRenew:
		return new(Renew)
	case TypeIdentity:
		return new(Identity)
	case TypeHello:
		return new(Hello)
	case TypeWelcome:
		return new(Welcome)
	case TypePool:
		return new(Pool)
	case TypeOffer:
		return new(Offer)
	case TypeOfferAck:
		return new(OfferAck)
	case TypeEndSession:
		return new(EndSession)
	case TypeRevoked:
		return new(Revoked)
	case TypeMeasurements:
		return new(Measurements)
	case TypeStatements:
		return new(Statements)
	case TypeLoad:
		return new(Load)
	case TypeReportAck:
		return new(ReportAck)
	case TypeJoin:
		return new(Join)
	case TypeJoinState:
		return new(JoinState)
	case TypeJoinStateAck:
		return new(JoinStateAck)
	case TypeFreshKey:
		return new(FreshKey)
	case TypeRefuse:
		return new(refuse)
	}
	return nil
}

func TestMessagesAreTheVectors(t *testing.T) {
	for _, v := range vectors(t) {
		m := message(Type(v.raw[0]))
		if (m != nil) != (v.text != "") {
			t.Errorf("%s: is it JSON or not?", v.name)
		}
		if m == nil {
			continue
		}
		if err := (Frame{Type(v.raw[0]), []byte(v.text)}).Decode(m); err != nil {
			t.Errorf("%s: %v", v.name, err)
		}
		var b bytes.Buffer
		if err := WriteJSON(&b, Type(v.raw[0]), m); err != nil || !bytes.Equal(b.Bytes(), v.raw) {
			t.Errorf("%s: wrote %q, %v, want %q", v.name, b.Bytes(), err, v.raw)
		}
	}
}

func TestUnknownMembersAreIgnoredAndMissingOnesAreZero(t *testing.T) {
	var j Join
	if err := (Frame{TypeJoin, []byte(` {"grant":"a","colour":{"deep":[1]}}`)}).Decode(&j); err != nil || j != (Join{Grant: "a"}) {
		t.Errorf("got %+v, %v", j, err)
	}
}

func TestMessageThatIsNoneIsRefused(t *testing.T) {
	t.Attr("id", "A1-input")
	bad := []string{``, ` `, `null`, `[]`, `"x"`, `7`, `{`, `{}{}`, `{"session":1}`, `{"epoch":"x"}`, `{"relay":{"ports":[65536]}}`,
		`{"relay":{"ports":[-1]}}`, `{"peer_spki":"00"}`, "\xef\xbb\xbf{}"}
	t.Attr("cases", fmt.Sprint(len(bad)))
	for _, s := range bad {
		err := Frame{TypeOffer, []byte(s)}.Decode(new(Offer))
		if !errors.Is(err, ErrFrame) || transport.ReasonOf(err) != transport.Protocol {
			t.Errorf("%q: %v", s, err)
		}
	}
	if err := (Frame{TypeOffer, []byte(`{}`)}).Decode(new(Offer)); err != nil {
		t.Errorf("without a fault: %v", err)
	}
}

func TestTimeRequestHasItsFields(t *testing.T) {
	uid := identity.NewUID()
	r := NewTimeRequest([32]byte{1, 31: 2}, uid)
	if r.Nonce() != [32]byte{1, 31: 2} || r.UID() != uid || r[0] != 1 || r[31] != 2 || r[32] != uid[0] || r[47] != uid[15] {
		t.Errorf("% x", r)
	}
}

func TestPingIsBounded(t *testing.T) {
	for give, want := range map[time.Duration]time.Duration{
		0: time.Second, time.Millisecond: time.Second, time.Second: time.Second, time.Minute: time.Minute,
		20 * time.Minute: 20 * time.Minute, time.Hour: 20 * time.Minute, 2000 * time.Hour: 20 * time.Minute, -time.Hour: time.Second,
	} {
		if got, err := (Frame{TypePing, Ping(give)}).PingInterval(); got != want || err != nil {
			t.Errorf("%v became %v, %v, want %v", give, got, err, want)
		}
	}
	for raw, want := range map[string]time.Duration{
		"\x00\x00\x00\x00": time.Second, "\x00\x00\x03\xe8": time.Second, "\x00\x00\x03\xe9": 1001 * time.Millisecond,
		"\xff\xff\xff\xff": 20 * time.Minute,
	} {
		if got, err := (Frame{TypePing, []byte(raw)}).PingInterval(); got != want || err != nil {
			t.Errorf("% x: got %v, %v, want %v", raw, got, err, want)
		}
	}
	for _, raw := range []string{"", "\x00\x00\x01", "\x00\x00\x00\x00\x01"} {
		if _, err := (Frame{TypePing, []byte(raw)}).PingInterval(); !errors.Is(err, ErrFrame) {
			t.Errorf("% x: got %v", raw, err)
		}
	}
}

func TestGraceIsTheIntervalUpTo15s(t *testing.T) {
	for next, want := range map[time.Duration]time.Duration{5 * time.Second: 5 * time.Second, 15 * time.Second: 15 * time.Second, time.Minute: 15 * time.Second} {
		if got := Grace(next); got != want {
			t.Errorf("%v: got %v, want %v", next, got, want)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.raw[0], []byte(v.text))
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		first, second := message(Type(kind)), message(Type(kind))
		if first == nil || (Frame{Type(kind), b}).Decode(first) != nil {
			return
		}
		once, err := json.Marshal(first)
		if err != nil {
			t.Fatalf("%q was parsed but cannot be encoded: %v", b, err)
		}
		if err := (Frame{Type(kind), once}).Decode(second); err != nil {
			t.Fatalf("%q was written but cannot be parsed: %v", once, err)
		}
		if twice, err := json.Marshal(second); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q became %q, %v", once, twice, err)
		}
	})
}
