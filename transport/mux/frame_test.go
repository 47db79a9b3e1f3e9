package mux

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"hawser/transport"
	"hawser/transport/wire"
)

var bothRoles = []wire.Role{wire.RoleRuntime, wire.RoleManager}

func TestVectorsAreReadAndWrittenBack(t *testing.T) {
	j, seen := newJudge(), map[string]bool{}
	for _, v := range vectors(t) {
		seen[v.name] = true
		for _, receiver := range bothRoles {
			h, err := parseHeader(v.raw[:headerBytes], receiver)
			name, stream, payload, _, fault := j.verdict(v.raw, receiver)
			if allowed := slices.Contains(v.receivers, receiver); allowed != (err == nil) || allowed != (fault == "") {
				t.Fatalf("%s to the %s: %v; the judge says %q", v.name, receiver, err, fault)
			}
			if err != nil {
				continue
			}
			if name != v.name || h != (header{v.raw[0], stream, len(payload)}) {
				t.Errorf("%s: got %+v; the judge says %s, stream %d, %q", v.name, h, name, stream, payload)
			}
			if got := appendFrame([]byte("x"), h.kind, h.stream, payload); !bytes.Equal(got[1:], v.raw) {
				t.Errorf("%s: wrote %x, want %x", v.name, got[1:], v.raw)
			}
		}
	}
	for _, r := range j {
		if !seen[r.name] {
			t.Errorf("no vector for %s", r.name)
		}
	}
}

// Every type, each length near a limit, with and without a stream, to both ends: the parser says what the judge says.
func TestHeaderIsWhatTheTableAllows(t *testing.T) {
	j, cases := newJudge(), 0
	for kind := range 256 {
		r := j[byte(kind)]
		for _, n := range []int{0, 1, r.least - 1, r.least, r.limit, r.limit + 1, 1<<24 - 1} {
			for _, stream := range []uint32{0, 1, 1<<32 - 1} {
				for _, receiver := range bothRoles {
					cases++
					b := make([]byte, headerBytes)
					putHeader(b, byte(kind), stream, max(n, 0))
					h, err := parseHeader(b, receiver)
					_, _, _, _, fault := j.verdict(b, receiver)
					if (fault == "bad") != (err != nil) || err != nil && !errors.Is(err, ErrFrame) {
						t.Fatalf("%x to the %s: %v; the judge says %q", b, receiver, err, fault)
					}
					if err == nil && h != (header{byte(kind), stream, max(n, 0)}) {
						t.Fatalf("%x became %+v", b, h)
					}
				}
			}
		}
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(cases))
}

func TestReasonOfABadFrameIsProtocol(t *testing.T) {
	_, err := parseHeader(make([]byte, headerBytes), wire.RoleRuntime)
	if transport.ReasonOf(err) != transport.Protocol {
		t.Errorf("got %v", err)
	}
}

func TestCountedIsBitSeven(t *testing.T) {
	for kind, r := range newJudge() {
		if counted(kind) != (r.stream || r.name == "end") {
			t.Errorf("%s counted: %v", r.name, counted(kind))
		}
	}
}

func TestFullDataFrameFillsOneRecord(t *testing.T) {
	if n := len(appendFrame(nil, typeData, 1, make([]byte, maxData))); n != 16384 {
		t.Errorf("%d bytes", n)
	}
}

func TestHeaderAllocatesNothing(t *testing.T) {
	b := appendFrame(nil, typeData, 1, []byte("x"))
	if n := testing.AllocsPerRun(100, func() { parseHeader(b[:headerBytes], wire.RoleRuntime) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzHeader(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.raw, true)
		f.Add(v.raw, false)
	}
	j := newJudge()
	f.Fuzz(func(t *testing.T, b []byte, toManager bool) {
		receiver := wire.RoleRuntime
		if toManager {
			receiver = wire.RoleManager
		}
		if len(b) < headerBytes {
			return
		}
		h, err := parseHeader(b[:headerBytes], receiver)
		_, stream, payload, rest, fault := j.verdict(b, receiver)
		switch {
		case (fault == "bad") != (err != nil):
			t.Fatalf("%x: %v; the judge says %q", b, err, fault)
		case err != nil && !errors.Is(err, ErrFrame):
			t.Fatal(err)
		case fault != "":
			return
		}
		if h != (header{b[0], stream, len(payload)}) {
			t.Fatalf("%x became %+v", b, h)
		}
		if got := appendFrame(nil, h.kind, h.stream, payload); !bytes.Equal(got, b[:len(b)-len(rest)]) {
			t.Fatalf("wrote %x, read %x", got, b)
		}
	})
}

// FuzzStream reads frames from a stream of bytes as a reader does, credit and all, until the first that is not allowed.
func FuzzStream(f *testing.F) {
	var all []byte
	for _, v := range vectors(f) {
		f.Add(v.raw)
		if slices.Contains(v.receivers, wire.RoleRuntime) {
			all = append(all, v.raw...)
		}
	}
	f.Add(all)
	j := newJudge()
	f.Fuzz(func(t *testing.T, b []byte) {
		c, a := newCredit(firstCredit, maxCredit), allowance{until: firstCredit}
		largest := 0
		for len(b) >= headerBytes {
			h, err := parseHeader(b[:headerBytes], wire.RoleRuntime)
			_, _, _, rest, fault := j.verdict(b, wire.RoleRuntime)
			if err != nil || fault != "" {
				if (err != nil) != (fault == "bad") {
					t.Fatalf("%v; the judge says %q", err, fault)
				}
				return
			}
			payload := b[headerBytes : headerBytes+h.n]
			largest = max(largest, len(payload))
			switch h.kind {
			case typeData, typeDataAsk:
				err = c.received(len(payload))
			case typeCredit:
				err = a.add(parseUint64(payload))
			default:
				err = parsePayload(h.kind, payload)
			}
			if err != nil {
				if !errors.Is(err, ErrFrame) {
					t.Fatal(err)
				}
				return
			}
			b = rest
		}
		if largest > 24<<10 || c.got > c.promised() || a.left() < 0 {
			t.Fatalf("a frame of %d bytes, %d received of %d, %d left", largest, c.got, c.promised(), a.left())
		}
	})
}

// parsePayload parses the payload of any type that mux parses itself.
func parsePayload(kind byte, payload []byte) (err error) {
	switch kind {
	case typeHello:
		_, err = parseHello(payload)
	case typeResume:
		_, err = parseResume(payload)
	case typeAck:
		_, err = parseAck(payload)
	case typeChain:
		_, err = parseChain(payload)
	case typeOpen:
		_, err = parseOpen(payload)
	case typeOpened:
		_, err = parseOpened(payload)
	case typeRefused, typeReset, typeEnd:
		_, err = parseWhy(kind, payload)
	}
	return err
}
