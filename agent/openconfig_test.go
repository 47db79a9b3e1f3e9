package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/board"
	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/answer"
	"hawser/probe/netcheck"
	"hawser/transport"
)

// netcheck works for a user who may not read the root; every other command says who may.
func TestRootThatThisUserMayNotRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte("access: [a.example]\nroot: root.pem\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	denied := func(file string) (*identity.Roots, error) {
		return nil, fmt.Errorf("read root: %w", &fs.PathError{Op: "open", Path: file, Err: fs.ErrPermission})
	}
	_, err := loadConfig(file, denied)
	if err == nil || !strings.Contains(err.Error(), "agent.yaml:2: root: ") || !strings.Contains(Advice(&answer.UsageError{Err: err}), "as root") {
		t.Errorf("%v; %s", err, Advice(err))
	}
	if c, err := loadConfig(file, unlessDenied(denied)); err != nil || c.Roots != nil || len(c.Access) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	broken := func(string) (*identity.Roots, error) { return nil, errors.New("no certificate") }
	if _, err := loadConfig(file, unlessDenied(broken)); err == nil {
		t.Error("a root that is none is passed over")
	}
}

// The sheet of a gateway that has been online names its relays without being told, and the identity.
func TestNetcheckKnowsWhereTheGatewayWasBefore(t *testing.T) {
	dir, s := enrolledDir(t, identitytest.New(time.Now()))
	for host, addr := range map[string]string{"access.example": "192.0.2.1:443", "relay1.example": "192.0.2.2:80"} {
		s.good(transport.Candidate{Host: host, Addr: netip.MustParseAddrPort(addr)}, time.Now())
	}
	if err := s.save(time.Now(), 0); err != nil {
		t.Fatal(err)
	}
	k := Known(Options{Config: Config{Data: dir, Access: []string{"access.example"}}, Board: board.New()})
	if !slices.Equal(k.Relays, []string{"relay1.example"}) || k.Roots == nil || k.Gateway == "" || k.Unreadable || k.Note != "" {
		t.Errorf("%+v", k)
	}
	reaches := func(c Config) *netcheck.Reach {
		c.Data = dir
		return Known(Options{Config: c, Board: board.New()}).Reach
	}
	rules := []Rule{must(ParseRule("192.168.10.20/32:502"))(t)}
	if got := reaches(Config{Allow: rules}); got == nil || got.LAN || !slices.Equal(got.To, []string{"192.168.10.20/32:502"}) {
		t.Errorf("by a rule sessions reach %+v", got)
	}
	if got := reaches(Config{Allow: []Rule{}}); got == nil || got.LAN || len(got.To) > 0 {
		t.Errorf("by an empty list sessions reach %+v", got)
	}
	if got := reaches(Config{File: "agent.yaml"}); runtime.GOOS == "linux" && (got == nil || !got.LAN) {
		t.Errorf("without a list sessions reach %+v", got)
	}
	if got := reaches(Config{}); got != nil {
		t.Errorf("without a file sessions reach %+v", got)
	}
	if k := Known(Options{Config: Config{Data: filepath.Join(dir, "none")}, Board: board.New()}); len(k.Relays) > 0 || k.Unreadable || k.Roots != nil {
		t.Errorf("of nothing: %+v", k)
	}
}
