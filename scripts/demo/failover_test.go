package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestBrokenConnectionIsReplaced(t *testing.T) {
	p, c := plcAndTool(t)
	d := &demo{plc: p}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := readSame(c, p); err == nil {
		t.Fatal("a closed connection can be read through, so nothing is tested")
	}
	for _, want := range []bool{true, false} {
		if r, broken, err := d.readAgain(t.Context(), c); err != nil || r.parts() == 0 || broken != want {
			t.Errorf("%v, broken %v, want %v; %v", r, broken, want, err)
		}
	}
}

func TestWrongReadingIsNotTriedAgain(t *testing.T) {
	_, c := plcAndTool(t)
	d := &demo{plc: &plc{began: time.Now().Add(-time.Hour)}}
	if _, _, err := d.readAgain(t.Context(), c); !errors.Is(err, errDiffers) {
		t.Errorf("%v, want errDiffers", err)
	}
}

func TestLostLocalAddressIsAnError(t *testing.T) {
	p, c := plcAndTool(t)
	p.stop()
	if _, _, err := (&demo{plc: p}).readAgain(t.Context(), c); err == nil || !strings.Contains(err.Error(), "local address") {
		t.Errorf("%v, want the local address", err)
	}
}

func TestSectionIsCutWhole(t *testing.T) {
	const top, section, end = "# why\nhosts:\n  - a\n", "relay:\n  name: relay1\n  access:\n    - b\n", "relays: no\nlog:\n  level: info"
	for _, tt := range []struct{ text, rest, section string }{
		{top + section + end, top + end, section},
		{top + section, top, section},
		{section + top, top, section},
		{top + end, top + end, ""},
		{"x:\n  relay:\n    name: y\n", "x:\n  relay:\n    name: y\n", ""},
		{"", "", ""},
	} {
		if rest, section := cutSection(tt.text, "relay"); rest != tt.rest || section != tt.section {
			t.Errorf("%q: rest %q, section %q", tt.text, rest, section)
		}
	}
}

func TestRelaysStandApart(t *testing.T) {
	d := &demo{relays: newRelays()}
	seen := map[string]bool{machineHost: true}
	for _, host := range d.hosts() {
		if seen[host] {
			t.Errorf("%s is used twice", host)
		}
		seen[host] = true
	}
	for _, r := range d.relays {
		if d.relayNamed(r.name) != r {
			t.Errorf("%s is not found by its name", r.name)
		}
	}
	if r := d.relayNamed("relay1"); r != nil {
		t.Errorf("%+v is no relay of the demo", r)
	}
}
