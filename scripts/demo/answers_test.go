package main

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseOnline(t *testing.T) {
	const uid = "53618ac1ad9cd895b5c1dcd888a946d6"
	gotUID, via, err := parseOnline("online " + uid + " via 127.0.0.1:5935")
	if gotUID != uid || via != "127.0.0.1:5935" || err != nil {
		t.Errorf("%q, %q, %v", gotUID, via, err)
	}
	for _, line := range []string{"", "online", "online " + uid, "online abc via 127.0.0.1:1", "offline " + uid + " via x"} {
		if _, _, err := parseOnline(line); err == nil {
			t.Errorf("%q is accepted", line)
		}
	}
}

func TestParseForward(t *testing.T) {
	got, err := parseForward("forward 127.0.0.1:41000 -> 127.0.0.2:502")
	want := forward{netip.MustParseAddrPort("127.0.0.1:41000"), netip.MustParseAddrPort("127.0.0.2:502")}
	if got != want || err != nil {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, line := range []string{
		"", "forward", "forward 127.0.0.1:41000", "forward 127.0.0.1:0 -> 127.0.0.2:502", "forward localhost:1 -> 127.0.0.2:502",
		"forward 127.0.0.1:41000 => 127.0.0.2:502", "forward 127.0.0.1:41000 -> 127.0.0.2",
	} {
		if _, err := parseForward(line); err == nil {
			t.Errorf("%q is accepted", line)
		}
	}
}

func TestParseUp(t *testing.T) {
	if relay, ok := parseUp("session up via relay relay2"); relay != "relay2" || !ok {
		t.Errorf("%q, %v", relay, ok)
	}
	for _, line := range []string{"", "session up via relay ", "session lost: link-lost via relay relay2; reconnecting", "moved to relay relay2"} {
		if relay, ok := parseUp(line); ok {
			t.Errorf("%q names relay %q", line, relay)
		}
	}
}

func TestPoolIsCompleteWhenBothEndsReachedAll(t *testing.T) {
	const good, late = `"manager":{"rtt_ms":1},"runtime":{"rtt_ms":1}`, `"manager":{"rtt_ms":1},"runtime":null`
	relays := []*relay{{name: "a"}, {name: "b"}}
	for _, tt := range []struct {
		answer string
		want   bool
	}{
		{`[{"name":"b",` + good + `},{"name":"a",` + good + `}]`, true},
		{`[{"name":"a",` + good + `}]`, false},
		{`[{"name":"a",` + good + `},{"name":"a",` + good + `}]`, false},
		{`[{"name":"a",` + good + `},{"name":"c",` + good + `}]`, false},
		{`[{"name":"a",` + good + `},{"name":"b",` + late + `}]`, false},
		{`[{"name":"a",` + good + `},{"name":"b","manager":{"reason":"timeout"},"runtime":{"rtt_ms":1}}]`, false},
		{`[]`, false},
	} {
		var d decision
		if err := decode("relays", `{"relays":`+tt.answer+`}`, &d); err != nil || d.complete(relays) != tt.want {
			t.Errorf("%s: complete %v, %v", tt.answer, d.complete(relays), err)
		}
	}
}

func TestDecisionIsPrintedForAnError(t *testing.T) {
	d := decision{Relays: []ratedRelay{{Name: "a", Manager: &measured{}}, {Name: "b", Manager: &measured{"timeout"}, Runtime: &measured{}}}}
	const want = "2 relays, a (technician reached, gateway not measured), b (technician timeout, gateway reached)"
	if d.String() != want {
		t.Errorf("%q, want %q", d, want)
	}
}

func TestDecodeNamesTheCommand(t *testing.T) {
	var d newDevice
	if err := decode("device add", `{"uid":"1","code":"2","expires":"later"}`, &d); err != nil || d.UID != "1" || d.Code != "2" {
		t.Errorf("%+v, %v", d, err)
	}
	err := decode("device add", "usage: hawser", &d)
	if err == nil || !strings.Contains(err.Error(), "device add") || !strings.Contains(err.Error(), "usage: hawser") {
		t.Errorf("%v, want the command and its answer", err)
	}
}
