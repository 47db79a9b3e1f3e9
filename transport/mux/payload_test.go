package mux

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"hawser/transport"
)

func TestPayloadsOfTheVectors(t *testing.T) {
	mac := [32]byte{}
	for i := range mac {
		mac[i] = byte(i)
	}
	want := map[string][]any{ // in the order of the file
		"hello": {
			helloPayload{Version: 2, Session: "s", Epoch: 1, List: 5, Device: 6, Statements: []string{"a.b.c"},
				StaleS: 10, MaxS: 60, AuditHead: []byte{1, 2, 3}},
			helloPayload{Version: 2, Session: "s", Epoch: 1, Features: []string{"x"}},
		},
		"resume":  {resumePayload{true, 0x102, mac}, resumePayload{}},
		"ack":     {ackPayload{0x203, time.Second}, ackPayload{1<<64 - 1, maxClock - time.Microsecond}},
		"chain":   {chainPayload{"-----BEGIN", []string{"a.b.c"}}},
		"open":    {openPayload{"tcp", "192.0.2.1:502", 65536}, openPayload{"ping", "", maxCredit}},
		"opened":  {openedPayload{8192}},
		"refused": {whyPayload{transport.Busy, "later", time.Minute}},
		"reset":   {whyPayload{Reason: transport.Reset}},
		"end":     {whyPayload{Reason: transport.Closed, Text: "bye"}},
	}
	for _, v := range vectors(t) {
		list := want[v.name]
		if len(list) == 0 {
			continue
		}
		want[v.name] = list[1:]
		got, raw, err := parseAny(v.raw[0], v.raw[headerBytes:])
		if err != nil || !reflect.DeepEqual(got, list[0]) {
			t.Errorf("%s: got %+v, %v, want %+v", v.name, got, err, list[0])
		}
		if !bytes.Equal(raw, v.raw[headerBytes:]) {
			t.Errorf("%s: encoded %q, want %q", v.name, raw, v.raw[headerBytes:])
		}
	}
	for name, list := range want {
		if len(list) > 0 {
			t.Errorf("%d payloads of %s have no vector", len(list), name)
		}
	}
}

// parseAny parses a payload and encodes it again.
func parseAny(kind byte, b []byte) (got any, raw []byte, err error) {
	switch kind {
	case typeHello:
		p, err := parseHello(b)
		return p, p.encode(), err
	case typeResume:
		p, err := parseResume(b)
		return p, p.encode(), err
	case typeAck:
		p, err := parseAck(b)
		return p, p.encode(), err
	case typeChain:
		p, err := parseChain(b)
		return p, p.encode(), err
	case typeOpen:
		p, err := parseOpen(b)
		return p, p.encode(), err
	case typeOpened:
		p, err := parseOpened(b)
		return p, p.encode(), err
	default:
		p, err := parseWhy(kind, b)
		return p, p.encode(), err
	}
}

func zeros(n int) string { return strings.Repeat("\x00", n) }

func TestPayloadsThatAreRefused(t *testing.T) {
	cases := []struct {
		kind    byte
		payload string
	}{
		{typeHello, ``}, {typeHello, `null`}, {typeHello, `[]`}, {typeHello, `{"version":"2"}`},
		{typeHello, `{"version":-1}`}, {typeHello, `{"version":2} x`}, {typeHello, `{"epoch":-1}`},
		{typeHello, `{"stale_s":-1}`}, {typeHello, `{"max_s":86401}`},
		{typeHello, `{"audit_head":"?"}`}, {typeHello, `{"statements":["","","","","","","","",""]}`},
		{typeHello, `{"statements":["` + strings.Repeat("a", maxStatementBytes+1) + `"]}`},
		{typeResume, "\x02" + zeros(40)}, {typeResume, zeros(8) + "\x01" + zeros(32)}, {typeResume, zeros(40) + "\x01"},
		{typeAck, zeros(7) + "\x01\x00\x04" + zeros(6)}, {typeAck, strings.Repeat("\xff", 16)},
		{typeChain, ``}, {typeChain, `null`}, {typeChain, `{}`}, {typeChain, `{"chain":7}`}, {typeChain, `{"statements":["a"]}`},
		{typeChain, `{"chain":"x","statements":"a"}`}, {typeChain, `{"chain":"x","statements":["","","","","","","","",""]}`},
		{typeChain, `{"chain":"x","statements":["` + strings.Repeat("a", maxStatementBytes+1) + `"]}`},
		{typeOpen, `7`}, {typeOpen, `{"service":7}`}, {typeOpen, `{"service":"tcp","credit":-1}`},
		{typeOpen, `{"service":"tcp","credit":16777217}`}, {typeOpen, `{"service":"tcp","credit":1.5}`},
		{typeOpen, `{"service":"tcp","credit":18446744073709551616}`},
		{typeOpened, `8192`}, {typeOpened, `{"credit":16777217}`},
		{typeRefused, `{}`}, {typeReset, `{"reason":"a b"}`}, {typeEnd, `{"reason":"` + strings.Repeat("a", 33) + `"}`},
		{typeEnd, `{"reason":"Closed"}`}, {typeEnd, `"closed"`},
	}
	for _, c := range cases {
		if got, _, err := parseAny(c.kind, []byte(c.payload)); !errors.Is(err, ErrFrame) {
			t.Errorf("%#02x %.60q: got %+v, %v", c.kind, c.payload, got, err)
		}
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(cases)))
}

func TestUnknownMembersAreIgnored(t *testing.T) {
	p, err := parseOpen([]byte(` {"service":"serial","target":"s 1","credit":1,"new":[{}]}`))
	if err != nil || p != (openPayload{"serial", "s 1", 1}) {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestTextOfAPeerIsInert(t *testing.T) {
	p, err := parseWhy(typeEnd, []byte(`{"reason":"from-the-future","text":"a\u001b[2J\n"}`))
	if err != nil || p != (whyPayload{Reason: "from-the-future", Text: "a?[2J?"}) {
		t.Errorf("got %+v, %v", p, err)
	}
	long := whyPayload{Reason: transport.Internal, Text: strings.Repeat("\x1b", 10000)}
	if limit, _ := limitOf(typeEnd); len(long.encode()) > limit {
		t.Errorf("%d bytes, over the limit", len(long.encode()))
	}
}

func FuzzPayloads(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.raw[0], v.raw[headerBytes:])
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		most, ok := limitOf(kind)
		if !ok || len(b) > most || len(b) < leastOf(kind) {
			return // parseHeader does not let it through
		}
		switch kind {
		case typeHello, typeResume, typeAck, typeChain, typeOpen, typeOpened, typeRefused, typeReset, typeEnd:
		default:
			return
		}
		got, raw, err := parseAny(kind, b)
		if err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Fatal(err)
			}
			return
		}
		again, _, err := parseAny(kind, raw)
		// Compared as JSON, which does not tell an empty list from none.
		one, _ := json.Marshal(got)
		two, _ := json.Marshal(again)
		if err != nil || !bytes.Equal(one, two) {
			t.Fatalf("%s became %s, %v", one, two, err)
		}
	})
}
