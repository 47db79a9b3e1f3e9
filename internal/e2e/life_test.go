//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"hawser/internal/wait"
)

// tech runs a command of the technician.
func (in *infra) tech(v any, args ...string) {
	in.t.Helper()
	command(in.t, v, "hawser", append([]string{"--home", in.home}, args...)...)
}

// refused runs a command of the technician that must fail with a word on stderr.
func (in *infra) refused(word string, args ...string) {
	in.t.Helper()
	_, code, errs := outcome(in.t, "hawser", append([]string{"--home", in.home}, args...)...)
	if code == 0 || !strings.Contains(errs, word) {
		in.t.Errorf("hawser %s: exit %d: %s; want %q", strings.Join(args, " "), code, errs, word)
	}
}

// called waits until the gateway knows its name and folder.
func (g *gateway) called(name, folder string) {
	g.t.Helper()
	var st struct {
		Owner struct{ Name, Folder string }
	}
	for end := time.Now().Add(patience); time.Now().Before(end); wait.Sleep(g.t.Context(), 100*time.Millisecond) {
		command(g.t, &st, "hawser-agent", "--data", g.data, "status", "--json")
		if st.Owner.Name == name && st.Owner.Folder == folder {
			return
		}
	}
	g.t.Fatalf("the gateway calls itself %+v, want %s in %s", st.Owner, name, folder)
}

// The life of a gateway with the programs as they are: it gets another name and place while it is attached, new hardware
// takes its place and the old one loses everything, and then the device is shut out.
func TestTheLifeOfAGateway(t *testing.T) {
	in := newInfra(t)
	plc := machine(t, func(c net.Conn) { io.WriteString(c, "42") })
	g := in.addDevice("press-4", loopbackAllowed)
	config, err := os.ReadFile(filepath.Join(g.data, "agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	g.enroll()
	g.run()
	in.tech(nil, "device", "move", "press-4", "north/hall")
	in.tech(nil, "device", "rename", "north/hall/press-4", "press 5")
	g.called("press 5", "north/hall")
	var listed []struct{ UID, Name, Folder string }
	if in.tech(&listed, "device", "list", "--folder", "north", "--json"); len(listed) != 1 || listed[0].UID != g.uid {
		t.Errorf("in the folder: %+v", listed)
	}
	in.refused("no-device", "ping", "press-4")
	in.refused("no-device", "ping", "south/press 5")
	g.name = "north/hall/press 5"
	reaches(t, g, plc)

	var code struct{ UID, Code string }
	in.tech(&code, "device", "code", "press 5", "--json")
	if code.UID != g.uid {
		t.Fatalf("a code for %s, want %s", code.UID, g.uid)
	}
	reaches(t, g, plc) // until another one is there
	fresh := &gateway{infra: in, name: g.name, uid: g.uid, code: code.Code, data: in.path("fresh")}
	if err := os.MkdirAll(fresh.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(fresh.data, "agent.yaml"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	if uid := fresh.enroll(); uid != g.uid {
		t.Fatalf("enrolled as %s, want %s", uid, g.uid)
	}
	fresh.run()
	var entries struct{ Entries int }
	in.tech(nil, "user", "list") // confirms the key, and lists the one before
	if in.tech(&entries, "domain", "show", "--json"); entries.Entries != 2 {
		t.Errorf("%d entries in the list, want the device's and the old key's", entries.Entries)
	}
	reaches(t, fresh, plc)
	var st struct{ State string }
	if command(t, &st, "hawser-agent", "--data", g.data, "status", "--json"); st.State != "quarantined" {
		t.Errorf("the old gateway is %s", st.State)
	}
	_, exit, errs := outcome(t, "hawser-agent", "--data", in.path("fresh"), "enroll", "--code", code.Code)
	if exit == 0 {
		t.Errorf("enrolled again: %s", errs)
	}

	in.tech(nil, "device", "revoke", "press 5")
	in.refused("no-device", "ping", "press 5")
	in.refused("no-device", "ping", g.uid)
	in.refused("not-found", "device", "rename", "press 5", "press 6")
}

// reaches opens a session, and reads what the machine says through it.
func reaches(t *testing.T, g *gateway, plc string) {
	t.Helper()
	p, addr := g.connect(plc)
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if b, err := io.ReadAll(c); err != nil || string(b) != "42" {
		t.Errorf("read %q, %v", b, err)
	}
	p.stop()
}

// The file of an admin's PC is all that a gateway needs; it is for its owner alone, and gone when it has worked.
func TestAProvisioningFileEnrollsAGateway(t *testing.T) {
	in := newInfra(t)
	file, data := in.path("press-4.txt"), in.path("press-4")
	var added struct{ UID, Code, File string }
	in.tech(&added, "device", "add", "press-4", "--out", file, "--json")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 || added.File != file || added.Code != "" {
		t.Fatalf("%+v, %v, %v", added, info, err)
	}
	in.refused("is there already", "device", "add", "press-5", "--out", file)
	in.refused("not-found", "device", "show", "press-5") // nothing was asked of the server
	enroll := func() (string, int, string) {
		return outcome(t, "hawser-agent", "--data", data, "enroll", "--file", file, "--json")
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, code, errs := enroll(); code != 2 {
		t.Errorf("a file that others can read: exit %d, %s", code, errs)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	out, code, errs := enroll()
	if code != 0 || !strings.Contains(out, added.UID) {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	command(t, nil, "hawser-agent", "--data", data, "config", "check")
	var shown struct{ UID string }
	if command(t, &shown, "hawser-agent", "--data", data, "identity", "show", "--json"); shown.UID != added.UID {
		t.Errorf("it is %s, want %s", shown.UID, added.UID)
	}
}

// A script that has the file gives it to the gateway's standard input, and the code is never on the gateway's disk.
func TestAProvisioningFileComesByStandardInput(t *testing.T) {
	in := newInfra(t)
	file, data := in.path("press-4.txt"), in.path("press-4")
	var added struct{ UID string }
	in.tech(&added, "device", "add", "press-4", "--out", file, "--json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	enroll := func(stdin []byte) (uid string, err error) {
		cmd := exec.CommandContext(t.Context(), program(t, "hawser-agent"), "--data", data, "enroll", "--file", "-", "--json")
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := cmd.Output()
		var got struct{ UID string }
		json.Unmarshal(out, &got)
		return got.UID, err
	}
	for name, cut := range map[string][]byte{"nothing": nil, "half of it": text[:len(text)/2]} {
		if uid, err := enroll(cut); err == nil {
			t.Errorf("%s: enrolled as %s", name, uid)
		}
	}
	if uid, err := enroll(text); err != nil || uid != added.UID {
		t.Fatalf("enrolled as %q, want %s: %v", uid, added.UID, err)
	}
	command(t, nil, "hawser-agent", "--data", data, "config", "check")
	var shown struct{ UID string }
	if command(t, &shown, "hawser-agent", "--data", data, "identity", "show", "--json"); shown.UID != added.UID {
		t.Errorf("it is %s, want %s", shown.UID, added.UID)
	}
	if left, err := os.ReadFile(file); err != nil || !bytes.Equal(left, text) {
		t.Errorf("the technician's file: %v", err)
	}
	// What came by standard input is not left lying in the gateway's directory.
	code := regexp.MustCompile(`U-[0-9A-Z-]{30,}`).Find(text)
	entries, err := os.ReadDir(data)
	if err != nil || code == nil {
		t.Fatalf("%v, code %q", err, code)
	}
	for _, e := range entries {
		if b, err := os.ReadFile(filepath.Join(data, e.Name())); err == nil && bytes.Contains(b, code[2:]) {
			t.Errorf("the code is in %s", e.Name())
		}
	}
}

// A gateway that its owner has released forgets him, and takes the next code while it runs.
func TestAReleasedGatewayWaitsForACode(t *testing.T) {
	in := newInfra(t)
	plc := machine(t, func(c net.Conn) { io.WriteString(c, "42") })
	g := in.addDevice("press-4", loopbackAllowed)
	g.enroll()
	g.run()
	p, _ := g.connect(plc) // a session that runs ends with it
	key, err := os.ReadFile(filepath.Join(g.data, "device.key"))
	if err != nil {
		t.Fatal(err)
	}
	in.tech(nil, "device", "release", "press-4")
	var st struct{ State string }
	for end := time.Now().Add(patience); st.State != "enroll" && time.Now().Before(end); wait.Sleep(t.Context(), 100*time.Millisecond) {
		command(t, &st, "hawser-agent", "--data", g.data, "status", "--json")
	}
	left, err := filepath.Glob(filepath.Join(g.data, "owner.*"))
	if st.State != "enroll" || err != nil || len(left) != 0 {
		t.Fatalf("it is in %s, and keeps %v, %v", st.State, left, err)
	}
	p.kill()
	in.refused("offline", "ping", g.uid)
	var added struct{ UID, Code string }
	in.tech(&added, "device", "add", "press-4", "--json")
	g.uid, g.code = added.UID, added.Code
	g.enroll()
	g.agent.line("online " + g.uid)
	if now, err := os.ReadFile(filepath.Join(g.data, "device.key")); err != nil || string(now) == string(key) {
		t.Errorf("it has the key of before: %v", err)
	}
	in.refused(g.uid, "ping", "press-4") // the name was another device's
	in.tech(nil, "ping", g.uid)
	reaches(t, g, plc)
}
