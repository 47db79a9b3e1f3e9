package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestFirstContactIsMergedIntoTheConfig(t *testing.T) {
	pki := identitytest.New(time.Now())
	root := filepath.Join(t.TempDir(), "root.pem")
	write(t, root, string(pki.Roots.PEM()), 0o644)
	pin, code := pki.Pin(), identity.NewOwnerCode().String()
	for name, tt := range map[string]struct {
		f      FirstContact
		cfg    Config
		access []string
		ports  []transport.Port
		pinned bool
	}{
		"root":                {FirstContact{Access: []string{"a.example"}, Code: code, RootFile: root}, Config{}, []string{"a.example"}, transport.DefaultPorts(), false},
		"pin":                 {FirstContact{Access: []string{"a.example:443"}, Code: code, Pin: pin.String(), Ports: []uint{8443}}, Config{}, []string{"a.example:443"}, []transport.Port{8443}, true},
		"all from the file":   {FirstContact{Code: code}, Config{Access: []string{"b.example"}, Ports: []transport.Port{80}, Roots: pki.Roots}, []string{"b.example"}, []transport.Port{80}, false},
		"flags beat the file": {FirstContact{Access: []string{"a.example"}, Ports: []uint{443}, Code: code, Pin: pin.String()}, Config{Access: []string{"b.example"}, Ports: []transport.Port{80}, Roots: pki.Roots}, []string{"a.example"}, []transport.Port{443}, true},
	} {
		cfg := tt.cfg
		e, err := tt.f.Prepare(&cfg)
		if err != nil || e.Code.String() != code || !slices.Equal(cfg.Access, tt.access) || !slices.Equal(cfg.Ports, tt.ports) {
			t.Errorf("%s: %+v, %+v, %v", name, e, cfg, err)
		}
		if tt.pinned != (e.Pin == pin) || tt.pinned == (cfg.Roots != nil) {
			t.Errorf("%s: pin %v, roots %v", name, e.Pin, cfg.Roots)
		}
	}
}

// The proxy of a command line goes where the agent finds it afterwards. A file that is there stays as it is, so that it must
// say the same.
func TestProxyOfTheFirstContactIsKept(t *testing.T) {
	pki, dir := identitytest.New(time.Now()), t.TempDir()
	write(t, filepath.Join(dir, rootFile), string(pki.Roots.PEM()), 0o600)
	contact := FirstContact{Access: []string{"a.example"}, Code: identity.NewOwnerCode().String(), Pin: pki.Pin().String(),
		Proxy: []string{"http://p.example:3128", "socks5://10.0.0.9"}}
	for name, words := range map[string][]string{"urls": contact.Proxy, "none": {"none"}, "auto": nil} {
		cfg, file := DefaultConfig(), filepath.Join(dir, name, "agent.yaml")
		cfg.Data = dir
		contact.Proxy = words
		if _, err := contact.Prepare(&cfg); err != nil {
			t.Fatal(err)
		}
		if err := WriteConfig(file, cfg); err != nil {
			t.Fatal(err)
		}
		read := must(LoadConfig(file))(t)
		if read.Proxy.String() != cfg.Proxy.String() || strings.Contains(string(must(os.ReadFile(file))(t)), "proxy") != (words != nil) {
			t.Errorf("%s: wrote %v, read %v", name, cfg.Proxy, read.Proxy)
		}
		if _, err := contact.Prepare(&read); err != nil {
			t.Errorf("%s, again: %v", name, err)
		}
		contact.Proxy = []string{"http://other.example:3128"}
		if _, err := contact.Prepare(&read); err == nil || !strings.Contains(err.Error(), "enroll leaves "+file+" as it is") {
			t.Errorf("%s, another one: %v", name, err)
		}
	}
}

func TestABadFirstContactIsRefused(t *testing.T) {
	code, pin := identity.NewOwnerCode().String(), identity.SPKI{1}.String()
	bad := map[string]struct {
		f    FirstContact
		want string
	}{
		"code":       {FirstContact{Access: []string{"a"}, Code: "XXXX", Pin: pin}, "--code: "},
		"no access":  {FirstContact{Code: code, Pin: pin}, "no Access Server is named"},
		"access":     {FirstContact{Access: []string{"a b"}, Code: code, Pin: pin}, "--access: "},
		"port 0":     {FirstContact{Access: []string{"a"}, Ports: []uint{0}, Code: code, Pin: pin}, "--ports: 0 is not"},
		"port 65536": {FirstContact{Access: []string{"a"}, Ports: []uint{65536}, Code: code, Pin: pin}, "--ports: 65536 is not"},
		"pin":        {FirstContact{Access: []string{"a"}, Code: code, Pin: "5f"}, "--pin: "},
		"no trust":   {FirstContact{Access: []string{"a"}, Code: code}, "nothing says whom to trust"},
		"root":       {FirstContact{Access: []string{"a"}, Code: code, RootFile: "/nowhere.pem"}, "read root: "},
		"proxy":      {FirstContact{Access: []string{"a"}, Code: code, Pin: pin, Proxy: []string{"nope"}}, "--proxy: "},
		"password":   {FirstContact{Access: []string{"a"}, Code: code, Pin: pin, Proxy: []string{"http://ann:secret@p"}}, "--proxy: others can read a command line: put a proxy with name and password into agent.yaml"},
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", strconv.Itoa(len(bad)))
	for name, tt := range bad {
		_, err := tt.f.Prepare(new(Config))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%s: %v, want %s…", name, err, tt.want)
		}
	}
}

func TestErrorsSortIntoExitCodes(t *testing.T) {
	closed := &transport.DialError{Hosts: []string{"a"}, Attempts: []transport.Attempt{{Reason: transport.Timeout}}}
	for name, tt := range map[string]struct {
		err    error
		code   int
		advice bool
	}{
		"nil":          {nil, answer.ExitDone, false},
		"other":        {errors.New("disk full"), answer.ExitFailed, false},
		"not enrolled": {fmt.Errorf("run: %w", ErrNotEnrolled), answer.ExitNotEnrolled, false},
		"bad code":     {&wire.Refusal{Reason: transport.BadCode}, answer.ExitRefused, true},
		"revoked":      {fmt.Errorf("renew: %w", &wire.Refusal{Reason: transport.Revoked}), answer.ExitRefused, true},
		"busy":         {&wire.Refusal{Reason: transport.Busy}, answer.ExitFailed, true},
		"no way":       {closed, answer.ExitUnreachable, true},
		"link lost":    {&transport.Error{Reason: transport.LinkLost}, answer.ExitUnreachable, true},
		"bad time":     {&transport.Error{Reason: transport.BadTime}, answer.ExitUnreachable, true},
		"intercepted":  {&transport.DialError{Attempts: []transport.Attempt{{Reason: transport.TLSIntercepted}}}, answer.ExitUnreachable, true},
		"no agent":     {fmt.Errorf("ask x: %w", ErrNotRunning), answer.ExitFailed, false},
	} {
		if got := ExitCode(tt.err); got != tt.code {
			t.Errorf("%s: exit code %d, want %d", name, got, tt.code)
		}
		if got := Advice(tt.err); (got != "") != tt.advice || strings.Contains(got, "\n") {
			t.Errorf("%s: advice %q", name, got)
		}
	}
}

func TestNetcheckNeedsNeitherIdentityNorStateDirectory(t *testing.T) {
	bubble(t, func(r *rig) {
		r.opts.Config.Data = "/nowhere"
		for name, roots := range map[string]*identity.Roots{"with a root": r.access.PKI.Roots, "without": nil} {
			r.opts.Config.Roots = roots
			known := Known(r.opts)
			report := known.Check(transport.ALPNAccess).Run(r.t.Context())
			if len(report.Ways) != 1 || !report.Ways[0].OK || report.Ways[0].Root.IsZero() != (roots != nil) || known.Unreadable || known.Note != "" {
				t.Errorf("%s: %+v\n%s", name, known, report.Text())
			}
			if len(report.Time) != 0 {
				t.Errorf("%s: asked %v for the time", name, report.Time)
			}
		}
		if got := r.access.Types(); len(got) > 0 {
			t.Errorf("it sent frames %#x", got)
		}
	})
}
