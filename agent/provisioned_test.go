package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/provision"
	"hawser/transport"
)

// A provisioning file makes the whole configuration of a gateway that has none, which is what the agent reads afterwards.
func TestAProvisioningFileIsAConfiguration(t *testing.T) {
	pki, dir := identitytest.New(time.Now()), t.TempDir()
	write(t, filepath.Join(dir, rootFile), string(pki.Roots.PEM()), 0o644)
	code := identity.NewOwnerCode().String()
	none := DefaultConfig()
	none.Data = dir
	f := provision.File{Access: []string{"a.example", "192.0.2.1:8443"}, Ports: []transport.Port{8443}, Code: code, Pin: pki.Pin(),
		Name: "press 4", Time: []string{"ntp.example"}, Agent: []string{`allow: ["192.168.10.20:502"]`, "proxy: http://u:p@proxy.example:3128"}}
	p, err := Provision(f, none)
	if err != nil || p.Enroll.Pin != pki.Pin() || p.Enroll.Code.String() != code || !p.Config.Proxy.HasLogin() {
		t.Fatalf("%+v, %v", p, err)
	}
	file := filepath.Join(dir, "etc", "agent.yaml")
	if err := p.WriteConfig(file); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 { // there is a password in it
		t.Errorf("%v, %v", info.Mode(), err)
	}
	got, err := LoadConfig(file)
	if err != nil || !slices.Equal(got.Access, f.Access) || !slices.Equal(got.Ports, f.Ports) || len(got.Allow) != 1 || got.Roots == nil ||
		!got.Proxy.HasLogin() {
		t.Errorf("%+v, %v", got, err)
	}
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), "ntp.example") || strings.Contains(string(b), code) {
		t.Errorf("%s, %v", b, err)
	}

	withRoot := provision.File{Access: f.Access, Code: code, Roots: pki.Roots}
	if p, err := Provision(withRoot, none); err != nil || p.Config.Roots == nil || !p.Enroll.Pin.IsZero() {
		t.Errorf("with the certificate: %+v, %v", p, err)
	}
	there := got
	there.Data = dir
	if p, err := Provision(withRoot, there); err != nil || p.WriteConfig(filepath.Join(dir, "other.yaml")) != nil {
		t.Errorf("with a configuration: %v", err)
	} else if _, err := os.Stat(filepath.Join(dir, "other.yaml")); err == nil {
		t.Error("a configuration was written beside the one that is there")
	}
	for what, change := range map[string]func(*provision.File, *Config){
		"no code":                        func(f *provision.File, _ *Config) { f.Code = "" },
		"a server's code":                func(f *provision.File, _ *Config) { f.Code = identity.NewCode().String() },
		"nobody to trust":                func(f *provision.File, _ *Config) { f.Pin = identity.SPKI{} },
		"a line of agent that is none":   func(f *provision.File, _ *Config) { f.Agent = []string{"alow: []"} },
		"a key twice":                    func(f *provision.File, _ *Config) { f.Agent = []string{"ports: [443]"} },
		"lines for a file that is there": func(_ *provision.File, c *Config) { *c = there },
	} {
		f, c := f, none
		change(&f, &c)
		if _, err := Provision(f, c); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}
