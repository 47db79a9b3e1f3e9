package board

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

func TestTimeServersOfTheSite(t *testing.T) {
	lease := func(lines ...string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("# This is private data.\nADDRESS=10.20.0.2\n" + strings.Join(lines, "\n") + "\n")}
	}
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for name, tt := range map[string]struct {
		files fstest.MapFS
		want  string
	}{
		"nothing known":          {fstest.MapFS{}, "[]"},
		"the image's file":       {fstest.MapFS{"run/hawser/ntp": file("10.20.0.1\n\n2001:db8:20::1\n")}, "[10.20.0.1 2001:db8:20::1]"},
		"a lease":                {fstest.MapFS{"run/systemd/netif/leases/2": lease("NTP=10.20.0.1 10.20.0.3", "DNS=10.20.0.9")}, "[10.20.0.1 10.20.0.3]"},
		"a lease without":        {fstest.MapFS{"run/systemd/netif/leases/2": lease("DNS=10.20.0.9")}, "[]"},
		"two leases":             {fstest.MapFS{"run/systemd/netif/leases/2": lease("NTP=10.20.0.1"), "run/systemd/netif/leases/3": lease("NTP=192.0.2.1")}, "[10.20.0.1 192.0.2.1]"},
		"both, the same":         {fstest.MapFS{"run/hawser/ntp": file("10.20.0.1"), "run/systemd/netif/leases/2": lease("NTP=::ffff:10.20.0.1")}, "[10.20.0.1]"},
		"more than are taken":    {fstest.MapFS{"run/hawser/ntp": file("10.0.0.1\n10.0.0.2\n10.0.0.3\n")}, "[10.0.0.1 10.0.0.2]"},
		"what no server has":     {fstest.MapFS{"run/hawser/ntp": file("127.0.0.1\n0.0.0.0\n255.255.255.255\n224.0.1.1\nfe80::1%eth0\n::1\n10.0.0.1:123\nntp.example\n\x00\n")}, "[]"},
		"a file that is no list": {fstest.MapFS{"run/hawser/ntp": file(strings.Repeat("10.0.0.1\n", 1000))}, "[]"},
	} {
		b := &Board{Root: tt.files}
		if got := fmt.Sprint(b.TimeServers()); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

func FuzzTimeServers(f *testing.F) {
	f.Add([]byte("10.20.0.1\nNTP=10.20.0.2 ::1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b := &Board{Root: fstest.MapFS{"run/hawser/ntp": {Data: text}, "run/systemd/netif/leases/2": {Data: text}}}
		list := b.TimeServers()
		if len(list) > maxTimeServers {
			t.Errorf("%d servers", len(list))
		}
		for _, a := range list {
			if !a.IsValid() || a.IsLoopback() || a.IsUnspecified() {
				t.Errorf("took %v", a)
			}
		}
	})
}
