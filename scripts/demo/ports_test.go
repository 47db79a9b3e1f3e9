package main

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestPortList(t *testing.T) {
	for _, tt := range []struct {
		text string
		want portList // nil: refused
	}{
		{"8080,8443,5935", portList{8080, 8443, 5935}},
		{"443", portList{443}},
		{"443, 80", portList{443, 80}},
		{"", nil},
		{"443,", nil},
		{"0", nil},
		{"65536", nil},
		{"443,443", nil},
		{"https", nil},
	} {
		var got portList
		err := got.Set(tt.text)
		if (err == nil) != (tt.want != nil) || !slices.Equal(got, tt.want) {
			t.Errorf("%q: %v, %v", tt.text, got, err)
		}
		var again portList
		if err == nil && (again.Set(got.String()) != nil || !slices.Equal(again, got)) {
			t.Errorf("%q printed and read again is %v", tt.text, again)
		}
	}
}

func TestTakenPortIsNamedWithItsCure(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	err = portList{port}.free("127.0.0.1")
	for _, want := range []string{"port " + strconv.Itoa(int(port)), "taken", "-ports"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
	l.Close()
	if err := (portList{port}).free("127.0.0.1"); err != nil {
		t.Errorf("a port that was given back: %v", err)
	}
}

func TestUsageErrorsExitWith2(t *testing.T) {
	for args, want := range map[string]int{"-help": 0, "-ports x": 2, "-nonsense": 2, "word": 2, "-bin /nonexistent": 1} {
		if got := run(strings.Fields(args), io.Discard, io.Discard); got != want {
			t.Errorf("demo %s: exit code %d, want %d", args, got, want)
		}
	}
}
