//go:build linux

package board

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestNotifierSaysWhatSystemdReads(t *testing.T) {
	for _, name := range []string{
		filepath.Join(t.TempDir(), "notify"),
		fmt.Sprintf("@hawser-test-%d", os.Getpid()), // abstract
	} {
		server, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		n, err := NewNotifier(name, "60000000")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			send func() error
			want string
		}{
			{n.Ready, "READY=1"},
			{n.Watchdog, "WATCHDOG=1"},
			{func() error { return n.Status("attached to 192.0.2.1\nREADY=1") }, "STATUS=attached to 192.0.2.1 READY=1"},
			{n.Stopping, "STOPPING=1"},
		} {
			if err := c.send(); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			k, err := server.Read(b)
			if err != nil || string(b[:k]) != c.want {
				t.Errorf("systemd reads %q, %v; want %q", b[:k], err, c.want)
			}
		}
	}
}

func TestWatchdogIntervalIsHalfOfWhatIsAllowed(t *testing.T) {
	for usec, want := range map[string]time.Duration{"": 0, "0": 0, "60000000": 30 * time.Second, "3": 1500} {
		n, err := NewNotifier("/run/notify", usec)
		if err != nil || n.Interval() != want {
			t.Errorf("WATCHDOG_USEC=%s: %v, %v; want %v", usec, n.Interval(), err, want)
		}
	}
	for _, usec := range []string{"soon", "-1", "1e6", "99999999999999999999"} {
		if _, err := NewNotifier("/run/notify", usec); err == nil {
			t.Errorf("WATCHDOG_USEC=%s was taken", usec)
		}
	}
}

func TestNoSocketMeansANotifierThatDoesNothing(t *testing.T) {
	n, err := NewNotifier("", "60000000")
	if n != nil || err != nil {
		t.Fatalf("%v, %v; want nil, nil", n, err)
	}
	for _, err := range []error{n.Ready(), n.Stopping(), n.Watchdog(), n.Status("x")} {
		if err != nil {
			t.Error(err)
		}
	}
	if n.Interval() != 0 {
		t.Error("a watchdog without systemd")
	}
}

func TestNotifierRefusesWhatIsNoSocket(t *testing.T) {
	if _, err := NewNotifier("vsock:2:1", ""); err == nil {
		t.Error("took a socket that it cannot reach")
	}
	n, err := NewNotifier(filepath.Join(t.TempDir(), "nobody"), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(); err == nil {
		t.Error("a notification that nobody got succeeded")
	}
}
