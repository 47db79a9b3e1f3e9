package probe

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHostsFileComesFirstAndAsItStands(t *testing.T) {
	bubble(t, func(r *rig) {
		r.server("192.0.2.53", honest)
		r.resolver.HostsFile = write(t, filepath.Join(t.TempDir(), "hosts"), `# comment
127.0.0.1	localhost  access.example # loopback is the owner's word
::ffff:10.1.2.3 Other.Example. access.example
10.1.2.3 access.example
nonsense access.example
10.9.9.9
10.1.2.4 #access.example
`)
		r.resolve("access.example", 0, netip.MustParseAddr("127.0.0.1"), lan)
		r.resolve("OTHER.example.", 0, lan)
		if n := r.asked.Load(); n != 0 {
			t.Errorf("%d questions were asked", n)
		}
		r.resolve("nothosts.example", 0, addr1, addr2)
	})
}

func TestResolvConfIsFollowedWhenItChanges(t *testing.T) {
	bubble(t, func(r *rig) {
		one, two := r.server("192.0.2.53", honest), r.server("2001:db8::53", says("%s 60 A 203.0.113.8"))
		r.resolver.Servers = nil
		r.resolver.ResolvConf = filepath.Join(t.TempDir(), "resolv.conf")
		r.fail("access.example", 0, ReasonNoResolver)
		write(t, r.resolver.ResolvConf, "# nothing yet\nsearch example\n")
		r.fail("access.example", 0, ReasonNoResolver)
		write(t, r.resolver.ResolvConf, "search example\nnameserver "+one.Addr().String()+"\nnameserver rubbish\noptions rotate\n")
		r.resolve("access.example", 0, addr1, addr2)
		write(t, r.resolver.ResolvConf, "nameserver "+two.Addr().String()+"\n")
		time.Sleep(maxTTL)
		r.resolve("access.example", 0, netip.MustParseAddr("203.0.113.8"))
	})
}

func TestServersAreBoundedAndKeepTheirZone(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "resolv.conf"),
		"nameserver fe80::1%eth0\n"+strings.Repeat("nameserver 192.0.2.1\n", 9)+
			"nameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\nnameserver 192.0.2.5\nnameserver 192.0.2.6\n")
	got := (&Resolver{ResolvConf: path}).ServersInUse()
	if len(got) != maxServers || got[0] != netip.MustParseAddrPort("[fe80::1%eth0]:53") || got[1].Addr() == got[2].Addr() {
		t.Errorf("servers %v", got)
	}
}

func TestSystemFilesOfAnySizeAreReadInPart(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "hosts"), strings.Repeat("0.0.0.0 ads.example\n", maxHostsBytes/20+1)+"10.1.2.3 late.example\n")
	if addrs := lookupHosts(path, "late.example"); addrs != nil {
		t.Errorf("read beyond the limit: %v", addrs)
	}
	if addrs := lookupHosts(path, "ads.example"); len(addrs) != 1 {
		t.Errorf("got %v, want one address", addrs)
	}
}

// The zero value finds what this machine has, whatever that is.
func TestZeroResolverReadsTheSystem(t *testing.T) {
	var r Resolver
	if got, want := len(r.ServersInUse()), len(systemServers()); got != min(want, maxServers) {
		t.Errorf("%d servers, the system has %d", got, want)
	}
	if path := r.hostsFile(); !filepath.IsAbs(path) {
		t.Errorf("hosts file %q", path)
	}
}

// The one test on real sockets: the default dialer, both networks.
func TestRealSockets(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			pc, l := listenBoth(t)
			h := over(honest, honest)
			if network == "tcp" {
				h = over(truncate, honest)
			}
			serve(t, pc, l, h)
			empty := write(t, filepath.Join(t.TempDir(), "hosts"), "")
			r := &Resolver{Servers: []netip.AddrPort{l.Addr().(*net.TCPAddr).AddrPort()}, HostsFile: empty}
			addrs, err := r.Resolve(t.Context(), "access.example")
			if err != nil || len(addrs) != 2 || addrs[0] != addr1 || addrs[1] != addr2 {
				t.Errorf("got %v, %v", addrs, err)
			}
		})
	}
}

// listenBoth takes a port that is free for TCP and for UDP.
func listenBoth(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if pc, err := net.ListenPacket("udp", l.Addr().String()); err == nil {
			return pc, l
		}
		l.Close()
	}
	t.Fatal("no port is free for both TCP and UDP")
	return nil, nil
}
