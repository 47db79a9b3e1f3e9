package board

import (
	"maps"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// gateway is a board whose files are testdata/gateway.
func gateway() *Board { return &Board{Root: os.DirFS("testdata/gateway")} }

func TestUptimeGrowsAndIsNotTheWallClock(t *testing.T) {
	b := New()
	first := b.Uptime()
	if again := b.Uptime(); first <= 0 || again < first {
		t.Errorf("uptime %v, then %v", first, again)
	}
	if d := time.Since(b.Now()); d < 0 || d > time.Minute {
		t.Errorf("the wall clock is %v off", d)
	}
	if runtime.GOOS != "linux" {
		return
	}
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	seconds, _, _ := strings.Cut(string(text), " ")
	kernel, err := time.ParseDuration(seconds + "s")
	if diff := (kernel - first).Abs(); err != nil || diff > time.Minute {
		t.Errorf("uptime %v, the kernel says %v, %v", first, kernel, err)
	}
}

func TestDefaultPaths(t *testing.T) {
	for _, c := range []struct {
		goos    string
		openwrt bool
		want    Paths
	}{
		{"linux", false, Paths{"/var/lib/hawser", "/etc/hawser/agent.yaml", "/run/hawser/agent.sock"}},
		{"linux", true, Paths{"/etc/hawser", "/etc/hawser/agent.yaml", "/var/run/hawser/agent.sock"}},
		{"windows", false, Paths{`D:\PD\Hawser`, `D:\PD\Hawser\agent.yaml`, `\\.\pipe\hawser-agent`}},
	} {
		if got := defaultPaths(c.goos, c.openwrt, `D:\PD`); got != c.want {
			t.Errorf("%s, OpenWrt %v: %+v, want %+v", c.goos, c.openwrt, got, c.want)
		}
	}
	if runtime.GOOS == "windows" {
		return
	}
	if got := gateway().DefaultPaths().State; got != "/etc/hawser" {
		t.Errorf("the mark of OpenWrt was not seen: %s", got)
	}
	got := (&Board{Root: fstest.MapFS{}}).DefaultPaths().WithState("/tmp/x")
	if want := (Paths{"/tmp/x", "/etc/hawser/agent.yaml", "/tmp/x/agent.sock"}); got != want {
		t.Errorf("with --data: %+v, want %+v", got, want)
	}
}

func TestHints(t *testing.T) {
	machine := gateway().Hints()[HintMachineID]
	if len(machine) != 32 || machine == "00112233445566778899aabbccddeeff" {
		t.Errorf("machine id %q, want 32 digits that are not the machine's own", machine)
	}
	want := map[string]string{
		HintSerial:    "1d0c29d4e3b2a617",
		HintCID:       "150100424a4e423452073a1b2c3d4e5f,03534453433634478012345678013a00",
		HintMAC:       "00:04:9f:01:02:03,00:04:9f:01:02:04",
		HintMachineID: machine,
	}
	if got := gateway().Hints(); !maps.Equal(got, want) {
		t.Errorf("hints %q, want %q", got, want)
	}
}

func TestHintsThatAreMissingOrBadAreAbsent(t *testing.T) {
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  map[string]string
	}{
		"empty machine":      {fstest.MapFS{}, nil},
		"unmade machine id":  {fstest.MapFS{"etc/machine-id": text("uninitialized\n")}, nil},
		"short machine id":   {fstest.MapFS{"etc/machine-id": text("0011\n")}, nil},
		"blank serial":       {fstest.MapFS{"proc/device-tree/serial-number": text(" \x00\n")}, nil},
		"file without end":   {fstest.MapFS{"proc/device-tree/serial-number": text(strings.Repeat("x", maxHintFile+1))}, nil},
		"older serial":       {fstest.MapFS{"proc/device-tree/serial-number": text("A1\x00")}, map[string]string{HintSerial: "A1"}},
		"escapes and UTF-8":  {fstest.MapFS{"proc/device-tree/serial-number": text("\x1b[2JA\u202eB\xff C\x7f")}, map[string]string{HintSerial: "[2JAB C"}},
		"long serial":        {fstest.MapFS{"proc/device-tree/serial-number": text(strings.Repeat("x", 200))}, map[string]string{HintSerial: strings.Repeat("x", 128)}},
		"tunnel, no address": {fstest.MapFS{"sys/class/net/tun0/type": text(""), "sys/class/net/eth0/device/x": text("")}, nil},
	} {
		b := &Board{Root: c.files}
		if got := b.Hints(); !maps.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func FuzzSanitise(f *testing.F) {
	f.Add("serial\x00")
	f.Add(" \u202e\x1b ")
	f.Fuzz(func(t *testing.T, s string) {
		got := sanitise(s)
		if len(got) > maxHintBytes || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q became %q", s, got)
		}
	})
}

func text(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
