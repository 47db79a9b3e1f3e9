package manager

import (
	"fmt"
	"strings"
	"testing"

	"hawser/internal/answer"
)

func TestParseForward(t *testing.T) {
	good := []struct{ in, want string }{
		{"8080:192.168.1.10:80", "127.0.0.1:8080:192.168.1.10:80"},
		{"0:192.168.1.10:80", "127.0.0.1:0:192.168.1.10:80"},
		{"0.0.0.0:8080:192.168.1.10:80", "0.0.0.0:8080:192.168.1.10:80"},
		{"8080:[fd00::10]:502", "127.0.0.1:8080:[fd00::10]:502"},
		{"[::1]:8080:[FD00::0010]:502", "[::1]:8080:[fd00::10]:502"},
		{"[::]:0:192.168.1.10:65535", "[::]:0:192.168.1.10:65535"},
		{"65535:[::ffff:192.168.1.10]:1", "127.0.0.1:65535:192.168.1.10:1"},
		{"08080:10.0.0.1:00080", "127.0.0.1:8080:10.0.0.1:80"},
	}
	for _, tt := range good {
		f, err := ParseForward(tt.in)
		if err != nil || f.String() != tt.want {
			t.Errorf("%q: %v, %v, want %s", tt.in, f, err, tt.want)
		}
	}
	for _, in := range badForwards() {
		f, err := ParseForward(in)
		if ExitCode(err) != answer.ExitUsage || f != (Forward{}) {
			t.Errorf("%q: %v, %v, want a usage error", in, f, err)
		}
		if err != nil && (len(err.Error()) > 250 || clean(err.Error()) != err.Error()) {
			t.Errorf("%q: the error is not fit to print: %q", in, err)
		}
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(badForwards())))
}

func badForwards() []string {
	return []string{
		"", ":", "::", ":::", "8080", "8080:80", "8080:192.168.1.10", "8080:192.168.1.10:", ":192.168.1.10:80",
		"8080:192.168.1.10:80:", "1:2:3:4:5", "127.0.0.1:8080:192.168.1.10:80:x", "127.0.0.1:8080:192.168.1.10:80:9:9",
		"65536:192.168.1.10:80", "-1:192.168.1.10:80", "+1:192.168.1.10:80", "0x50:192.168.1.10:80", "000080:192.168.1.10:80",
		"8080:192.168.1.10:0", "8080:192.168.1.10:65536", "8080:192.168.1.10:http",
		"8080:plc:80", "8080:plc.example:80", "localhost:8080:192.168.1.10:80", "*:8080:192.168.1.10:80",
		"8080:0.0.0.0:80", "8080:[::]:80", "8080:192.168.1:80", "8080:192.168.1.010:80", "8080:192.168.1.256:80",
		"8080:fd00::10:502", "8080:[fd00::10:502", "8080:fd00::10]:502", "8080:[192.168.1.10]:80", "8080:[]:80",
		"8080:[fd00::10]502", "8080:[fd00::10]", "8080:[[fd00::10]]:502", "8080:[fe80::1%eth0]:80", "[fe80::1%eth0]:1:10.0.0.1:80",
		"[::1:8080:10.0.0.1:80", "[127.0.0.1]:8080:10.0.0.1:80", " 8080:10.0.0.1:80", "8080:10.0.0.1:80 ", "8080:10.0.0.1:80\n",
		"8080:10.0.0.1:80\x00", "8080:\x1b[2J:80", "８080:10.0.0.1:80", strings.Repeat("8", 1<<20), strings.Repeat(":", 1<<20),
	}
}

// Parse, print, parse again: the same.
func FuzzParseForward(f *testing.F) {
	f.Add("8080:192.168.1.10:80")
	f.Add("[::1]:0:[fd00::10]:502")
	for _, s := range badForwards() {
		f.Add(s[:min(len(s), 100)])
	}
	f.Fuzz(func(t *testing.T, s string) {
		one, err := ParseForward(s)
		if err != nil {
			return
		}
		if two, err := ParseForward(one.String()); err != nil || two != one {
			t.Errorf("%q: %v, then %v, %v", s, one, two, err)
		}
		if !one.Target.IsValid() || one.Target.Port() == 0 || one.Target.Addr().IsUnspecified() || one.Target.Addr().Zone() != "" {
			t.Errorf("%q: target %v", s, one.Target)
		}
	})
}
