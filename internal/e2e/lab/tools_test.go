//go:build linux

package lab

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The technician's own tools reach the machine's own servers through a session as if they stood beside them.
func TestToolsWorkThroughASession(t *testing.T) {
	g := newRig(t).addDevice("press-4")
	g.enroll()
	g.run(t)
	for name, tool := range map[string]func(*testing.T, *gateway){
		"mbpoll reads and writes registers": useModbus, "curl fetches a file": useHTTP, "ssh carries a file both ways": useSSH,
		"iperf3 measures": useIperf, "a VNC client sees the screen": useVNC,
	} {
		t.Run(name, func(t *testing.T) {
			t.Attr("id", "A2-tools")
			tool(t, g)
		})
	}
}

// forwardTo opens a session with a forward to a port of the PLC, and returns where it is on tech.
func (g *gateway) forwardTo(t *testing.T, port string) (host, local string) {
	t.Helper()
	_, addrs := g.connect(t, "0:"+net.JoinHostPort(plc(t), port))
	host, local, err := net.SplitHostPort(addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	return host, local
}

func useModbus(t *testing.T, g *gateway) {
	startCommand(t, onHost(t, "plc1", "modbus")).await(0, "listening")
	host, port := g.forwardTo(t, "502")
	poll := func(args ...string) string {
		return must(t, nil, "tech", "mbpoll", append([]string{"-m", "tcp", "-p", port, "-a", "1", "-1", "-q", "-t", "4", host}, args...)...).stdout
	}
	registers := func(want ...string) {
		t.Helper()
		var got []string
		for l := range strings.Lines(poll("-r", "1", "-c", "4")) {
			if register, value, ok := strings.Cut(l, ":"); ok && strings.HasPrefix(register, "[") {
				got = append(got, strings.TrimSpace(value))
			}
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("registers %v, want %v", got, want)
		}
	}
	registers("11", "22", "33", "44")
	poll("-r", "3", "4711")
	registers("11", "22", "4711", "44")
}

// noise makes a file of bytes that do not repeat.
func noise(t *testing.T, size int) (file string, bytes []byte) {
	t.Helper()
	file, bytes = filepath.Join(t.TempDir(), "noise"), make([]byte, size)
	if _, err := rand.NewChaCha8(sha256.Sum256([]byte(t.Name()))).Read(bytes); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	return file, bytes
}

// expectBytes wants a file to hold exactly what was sent.
func expectBytes(t *testing.T, what, file string, want []byte) {
	t.Helper()
	if got := contents(t, file); !bytes.Equal(got, want) {
		t.Errorf("%s: %d of %d bytes arrived, or others", what, len(got), len(want))
	}
}

func useHTTP(t *testing.T, g *gateway) {
	file, want := noise(t, 8<<20)
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf")
	text := nginxConf(dir, "http", "location /noise { alias "+file+"; }", "", "")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "plc1", "nginx", "-e", filepath.Join(dir, "error"), "-c", conf).awaitPort(443)
	host, port := g.forwardTo(t, "443")
	got := filepath.Join(dir, "got")
	must(t, nil, "tech", "curl", "-sS", "--fail", "-o", got, "http://"+net.JoinHostPort(host, port)+"/noise")
	expectBytes(t, "download", got, want)
}

func useIperf(t *testing.T, g *gateway) {
	start(t, "plc1", "iperf3", "-s").awaitPort(5201)
	host, port := g.forwardTo(t, "5201")
	var report struct {
		End struct {
			Received struct {
				Bytes float64
				Rate  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	must(t, &report, "tech", "iperf3", "-c", host, "-p", port, "-t", "1", "-J")
	if got := report.End.Received; got.Bytes <= 0 || got.Rate <= 0 {
		t.Errorf("iperf3 says that %v bytes arrived, %v bit/s", got.Bytes, got.Rate)
	}
	t.Logf("%.0f Mbit/s", report.End.Received.Rate/1e6)
}

// useVNC compares the client's picture of the screen with one that is taken beside the machine.
func useVNC(t *testing.T, g *gateway) {
	const display, port = ":57", "5957" // a VNC client counts displays from port 5900
	screen := start(t, "plc1", "Xtigervnc", display, "-rfbport", port, "-SecurityTypes", "None", "-geometry", "640x480", "-depth", "24",
		"-retro", "-nolock", "-nolisten", "unix", "-nolisten", "local", "-listen", "tcp")
	screen.await(0, "Listening for VNC connections")
	g.connect(t, port+":"+net.JoinHostPort(plc(t), port))
	snapshot := func(host, server string) string {
		file := filepath.Join(t.TempDir(), host+".jpg")
		must(t, nil, host, "vncsnapshot", "-quiet", "-nojpeg", "-nocursor", "-encodings", "raw", server+display, file)
		return file
	}
	near := contents(t, snapshot("plc1", "127.0.0.1"))
	if !bytes.HasPrefix(near, []byte("\xff\xd8\xff")) {
		t.Fatalf("the machine's screen is not a JPEG picture, but %.40q", near)
	}
	expectBytes(t, "screen", snapshot("tech", "127.0.0.1"), near)
}
