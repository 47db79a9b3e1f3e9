package agent

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestFirstContactIsMergedIntoTheConfig(t *testing.T) {
	in := newInfra(t, time.Now())
	root := filepath.Join(t.TempDir(), "root.pem")
	write(t, root, string(in.roots.PEM()), 0o644)
	pin, code := identity.CertSPKI(in.root.Cert), identity.NewCode().String()
	for name, tt := range map[string]struct {
		f      FirstContact
		cfg    Config
		access []string
		ports  []transport.Port
		pinned bool
	}{
		"root":                {FirstContact{Access: []string{"a.example"}, Code: code, RootFile: root}, Config{}, []string{"a.example"}, transport.DefaultPorts(), false},
		"pin":                 {FirstContact{Access: []string{"a.example:443"}, Code: code, Pin: pin.String(), Ports: []uint{8443}}, Config{}, []string{"a.example:443"}, []transport.Port{8443}, true},
		"all from the file":   {FirstContact{Code: code}, Config{Access: []string{"b.example"}, Ports: []transport.Port{80}, Roots: in.roots}, []string{"b.example"}, []transport.Port{80}, false},
		"flags beat the file": {FirstContact{Access: []string{"a.example"}, Ports: []uint{443}, Code: code, Pin: pin.String()}, Config{Access: []string{"b.example"}, Ports: []transport.Port{80}, Roots: in.roots}, []string{"a.example"}, []transport.Port{443}, true},
	} {
		cfg := tt.cfg
		e, err := tt.f.Prepare(&cfg)
		if err != nil || e.Code != code || !slices.Equal(cfg.Access, tt.access) || !slices.Equal(cfg.Ports, tt.ports) {
			t.Errorf("%s: %+v, %+v, %v", name, e, cfg, err)
		}
		if tt.pinned != (e.Pin == pin) || tt.pinned == (cfg.Roots != nil) {
			t.Errorf("%s: pin %v, roots %v", name, e.Pin, cfg.Roots)
		}
	}
}

func TestABadFirstContactIsRefused(t *testing.T) {
	code, pin := identity.NewCode().String(), identity.SPKI{1}.String()
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

func TestErrorsSortIntoRefusedAndUnreachable(t *testing.T) {
	closed := &transport.DialError{Hosts: []string{"a"}, Attempts: []transport.Attempt{{Reason: transport.Timeout}}}
	for name, tt := range map[string]struct {
		err                          error
		refused, unreachable, advice bool
	}{
		"nil":         {nil, false, false, false},
		"other":       {errors.New("disk full"), false, false, false},
		"bad code":    {&wire.Refusal{Reason: transport.BadCode}, true, false, true},
		"revoked":     {fmt.Errorf("renew: %w", &wire.Refusal{Reason: transport.Revoked}), true, false, true},
		"busy":        {&wire.Refusal{Reason: transport.Busy}, false, false, true},
		"no way":      {closed, false, true, true},
		"link lost":   {&transport.Error{Reason: transport.LinkLost}, false, true, true},
		"bad time":    {&transport.Error{Reason: transport.BadTime}, false, true, true},
		"intercepted": {&transport.DialError{Attempts: []transport.Attempt{{Reason: transport.TLSIntercepted}}}, false, true, true},
	} {
		if got := Refused(tt.err); got != tt.refused {
			t.Errorf("%s: refused %v", name, got)
		}
		if got := Unreachable(tt.err); got != tt.unreachable {
			t.Errorf("%s: unreachable %v", name, got)
		}
		if got := Advice(tt.err); (got != "") != tt.advice || strings.Contains(got, "\n") {
			t.Errorf("%s: advice %q", name, got)
		}
	}
}

func TestBuildTimeHasADefault(t *testing.T) {
	if got := BuildTime("2027-03-01T10:00:00Z"); !got.Equal(time.Date(2027, 3, 1, 10, 0, 0, 0, time.UTC)) {
		t.Errorf("stamped: %v", got)
	}
	for _, s := range []string{"", "unknown", "0001"} {
		if got := BuildTime(s); got.Year() < 2026 {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestNetcheckNeedsNeitherIdentityNorStateDirectory(t *testing.T) {
	bubble(t, func(r *rig) {
		r.opts.Config.Roots = r.access.in.roots
		r.opts.Config.Data = "/nowhere"
		report, err := Netcheck(r.t.Context(), r.opts, func(fmt.Stringer) {})
		if err != nil || len(report.Ways) != 1 || !report.Ways[0].OK {
			t.Errorf("%+v, %v", report, err)
		}
		if got := r.access.types(); len(got) > 0 {
			t.Errorf("it sent frames %#x", got)
		}
		r.opts.Config.Roots = nil
		if _, err := Netcheck(r.t.Context(), r.opts, nil); err == nil || !strings.Contains(err.Error(), "--root") {
			t.Errorf("without a root: %v", err)
		}
		r.opts.Config.Access = nil
		if _, err := Netcheck(r.t.Context(), r.opts, nil); err == nil || !strings.Contains(err.Error(), "--access") {
			t.Errorf("without an Access Server: %v", err)
		}
	})
}
