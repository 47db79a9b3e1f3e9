package manager

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"hawser/transport"
)

func TestNetcheckKnowsTheAccountAndDoesWithoutOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		if k, err := m.Known(); err != nil || len(k.Hosts) > 0 || k.Roots != nil || k.Note != "" {
			t.Errorf("before login: %+v, %v", k, err)
		}
		a := f.loggedIn(m)
		a.good.add(transport.Candidate{Host: "relay1.example", Addr: netip.MustParseAddrPort("192.0.2.9:443")}, m.now())
		a.Close()
		k, err := m.Known()
		if err != nil || !slices.Equal(k.Hosts, a.state.config.Hosts) || k.Roots == nil || k.Note != "" || !slices.Equal(k.Relays, []string{"relay1.example"}) {
			t.Errorf("after it: %+v, %v", k, err)
		}
		if err := os.WriteFile(filepath.Join(m.Home, configFile), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if k, err := m.Known(); err != nil || len(k.Hosts) > 0 || !strings.Contains(k.Note, "the account cannot be read") {
			t.Errorf("damaged: %+v, %v", k, err)
		}
	})
}
