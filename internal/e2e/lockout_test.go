//go:build linux

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hawser/identity"
	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/api"
	"hawser/transport/api/apitest"
	"hawser/transport/wire"
)

// lockoutSources is from how many addresses wrong codes come, and lockoutSite how many gateways start behind one address.
const (
	lockoutSources = 200
	lockoutSite    = 50
)

// While wrong codes come from everywhere, also with the lookup ids of good ones, each good code is taken at the first try:
// those of a site whose gateways all start at once behind one address, and that of a technician.
func TestWrongCodesLockNobodyOut(t *testing.T) {
	t.Attr("id", "L-lockout")
	l := newLoad(t, "")
	var site []apitest.Device
	for i := range lockoutSite {
		added, status, code := l.add(fmt.Sprint("press ", i))
		if status != http.StatusCreated {
			t.Fatalf("add: %d %s", status, code)
		}
		site = append(site, added)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var guessing sync.WaitGroup
	var guesses guesses
	for w := range 4 {
		guessing.Go(func() {
			for i := w; ctx.Err() == nil; i += 4 {
				l.guess(ctx, &guesses, i, site[i%len(site)].Code)
			}
		})
	}
	for last, moved := int64(-1), time.Now(); guesses.all.Load() < 2*lockoutSources; wait.Sleep(ctx, 20*time.Millisecond) {
		if n := guesses.all.Load(); n != last {
			last, moved = n, time.Now()
		}
		if time.Since(moved) > patience {
			t.Fatalf("only %d guesses", last)
		}
	}
	var enrolled atomic.Int32
	var starting sync.WaitGroup
	for _, device := range site {
		starting.Go(func() {
			if _, err := l.enroll(t.Context(), device); err != nil {
				t.Errorf("a good code: %v", err)
				return
			}
			enrolled.Add(1)
		})
	}
	for i := range 10 {
		var answer api.LoginAnswer
		if status, code := l.ask(nil, "POST", "/api/v1/login", l.domain.Login(l.code, "admin"), &answer); status != http.StatusOK {
			t.Errorf("login %d: %d %s", i, status, code)
		}
	}
	starting.Wait()
	cancel()
	guessing.Wait()
	t.Attr("cases", fmt.Sprint(lockoutSite+10))
	t.Logf("%d of %d gateways enrolled; %d wrong codes from %d addresses, %d of them told that they are wrong",
		enrolled.Load(), lockoutSite, guesses.all.Load(), lockoutSources, guesses.refused.Load())
	if guesses.refused.Load() == 0 {
		t.Error("nobody has guessed")
	}
}

// guesses counts wrong codes.
type guesses struct{ all, refused atomic.Int64 }

// guess tries a wrong code, to enroll or to log in, from one of the addresses.
func (l *load) guess(ctx context.Context, g *guesses, i int, good identity.OwnerCode) {
	defer g.all.Add(1)
	auth := identity.NewOwnerCode().Auth()
	lookup := good.LookupID() // which is no secret
	if i%2 != 0 {
		lookup = identity.NewOwnerCode().LookupID()
	}
	from := net.IPv4(127, 66, byte(i/2%lockoutSources/100), byte(1+i/2%lockoutSources%100))
	someone, alpn := accesstest.NewClient(), transport.ALPNAccess
	if i%4 > 1 {
		alpn = transport.ALPNAPI
	}
	d := tls.Dialer{Config: someone.TLS(alpn), NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", l.ports[1]))
	if err != nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.(*tls.Conn).NetConn().Close() })()
	if alpn == transport.ALPNAPI {
		response, _, err := accesstest.Ask(conn, "POST", "/api/v1/login", api.LoginRequest{Lookup: lookup, Auth: auth[:], CSR: someone.CSR()})
		if err == nil && response.StatusCode == http.StatusForbidden {
			g.refused.Add(1)
		}
		return
	}
	if accesstest.Prelude(conn) != nil || wire.WriteJSON(conn, wire.TypeEnroll, wire.Enroll{Lookup: lookup, Auth: auth[:], CSR: someone.CSR()}) != nil {
		return
	}
	if f, err := wire.Read(conn); err == nil && f.Type == wire.TypeRefuse && f.Refusal().Reason == transport.BadCode {
		g.refused.Add(1)
	}
}
