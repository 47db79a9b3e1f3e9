//go:build linux

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/internal/thieftest"
	"hawser/internal/wait"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/wire"
)

// comesBack reports whether an error says only that gateway and relay have not found the server again.
func comesBack(err error) bool {
	return err != nil && (strings.Contains(err.Error(), string(transport.Offline)) || strings.Contains(err.Error(), string(transport.NoRelay)))
}

// Whoever has the Access Server, with every key but the root's, is an admin for the server and nobody for the gateway. The
// same attack with the owner's domain key gets in, so that it is the statements that keep him out.
func TestAStolenServerLetsNobodyIn(t *testing.T) {
	t.Attr("id", "T-server")
	in := newInfra(t)
	plc := machine(t, func(c net.Conn) { c.Write([]byte("42")) })
	g := in.addDevice("press-4", loopbackAllowed)
	g.enroll()
	g.run()
	command(t, nil, "hawser", "--home", in.home, "ping", "press-4") // the gateway has given its key
	b, err := os.ReadFile(in.root)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := identity.ParseRoots(b)
	if err != nil {
		t.Fatal(err)
	}

	in.server.stop()
	o := store.Options{Dir: in.path("server/access/store"), Node: "access1"}
	mallory, err := thieftest.Forge(t.Context(), o, "default", g.uid, roots)
	if err != nil {
		t.Fatal(err)
	}
	in.serve()
	addr := net.JoinHostPort("127.0.0.1", in.ports[0])
	if err := mallory.Login(t.Context(), addr); err != nil {
		t.Fatalf("the stolen server does not even take its thief: %v", err)
	}
	cases := map[string][]string{
		"his own domain key": mallory.Chain(),
		"no statements":      nil,
		"his own twice":      append(mallory.Chain(), mallory.Chain()...),
	}
	for name, chain := range cases {
		s, err := mallory.Open(t.Context(), addr, chain)
		for end := time.Now().Add(patience); comesBack(err) && time.Now().Before(end); {
			wait.Sleep(t.Context(), 100*time.Millisecond)
			s, err = mallory.Open(t.Context(), addr, chain)
		}
		if err == nil {
			s.Close()
			t.Errorf("%s: he is in", name)
			continue
		}
		if reason := transport.ReasonOf(err); reason != transport.NotStated {
			t.Errorf("%s: refused by %s (%v)", name, reason, err)
		}
		if !strings.Contains(err.Error(), "by the owner's statements") {
			t.Errorf("%s: he is not told by whom: %v", name, err)
		}
	}
	// The honest technician is turned away by the thief's server, for which his key is nobody's, and not led astray.
	_, exit, said := outcome(t, "hawser", "--home", in.home, "ping", "press-4")
	if exit != answer.ExitRefused || !strings.Contains(said, "open session with press-4: not-stated: ") {
		t.Errorf("the honest technician: exit %d: %s", exit, said)
	}
	pem, err := os.ReadFile(filepath.Join(in.home, "domain.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.ParseKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	// With the domain key he is the owner.
	mallory.Owner.DomainKey = key
	if mallory.Owner.Key, err = identity.NewPublicKey(key.Public()); err != nil {
		t.Fatal(err)
	}
	s, err := mallory.Open(t.Context(), addr, mallory.Chain())
	if err != nil {
		t.Fatalf("with the domain key: %v", err)
	}
	defer s.Close()
	stream, err := s.Open(t.Context(), mux.Open{Service: wire.ServiceTCP, Target: plc})
	if err != nil {
		t.Fatalf("with the domain key: %v", err)
	}
	got := make([]byte, 2)
	if _, err := stream.Read(got); err != nil || string(got) != "42" {
		t.Errorf("with the domain key: %q, %v", got, err)
	}
	t.Attr("cases", "5")
}
