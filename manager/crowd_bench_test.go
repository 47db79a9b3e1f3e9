package manager

import (
	"fmt"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/owner"
)

// crowd is the account of an admin, ada, who has stated so many devices with the keys that came with their codes and were
// confirmed, among 100 users.
func crowd(b *testing.B, devices int) (*Account, statements) {
	o, ada := identitytest.NewOwner("plant"), identitytest.NewKey()
	peer := identity.Peer{Name: identity.UserName("plant", "ada"), SPKI: must(identity.SPKIOf(ada.Public()))}
	chain := o.UserChain("ada", identity.RoleAdmin, nil, ada.Public())
	own := must(owner.Create(b.TempDir(), peer, o.Key))
	if _, err := own.Take(chain, time.Now()); err != nil {
		b.Fatal(err)
	}
	a := &Account{m: &Manager{}, home: home(b.TempDir())}
	a.state.owner, a.state.Key, a.state.config.Domain, a.state.config.User = own, ada, "plant", "ada"
	pool := parsed(chain)
	for i := range 100 {
		pool = append(pool, parsed(o.UserChain(fmt.Sprintf("user-%d", i), identity.RoleOperator, nil, identitytest.NewKey().Public()))...)
	}
	hers := *o
	hers.DomainKey = ada
	for i := range devices {
		uid, key := identity.NewUID(), identitytest.NewKey()
		code, invitation := hers.Invite(hers.Device(uid, fmt.Sprintf("press-%d", i)))
		stated := identity.KeyStatement{Domain: "plant", Subject: identity.Subject{UID: uid}, Key: must(identity.NewPublicKey(key.Public()))}
		pool = append(pool, invitation.Subject, invitation.Invite, must(identity.Sign(stated, code.InviteKey(0))), hers.DeviceKey(uid, key.Public()))
	}
	return a, pool
}

// BenchmarkCrowd measures what an admin's commands think about, for each device of the domain: the time of one must not grow
// with their number.
func BenchmarkCrowd(b *testing.B) {
	for _, n := range []int{500, 5000} {
		a, pool := crowd(b, n)
		for name, f := range map[string]func(){
			"confirm": func() { _, _, err := a.confirm(b.Context(), pool, nil); fatal(b, err) },
			"list":    func() { a.keyStates(pool) },
			"find":    func() { _, err := a.device(pool, "press-7"); fatal(b, err) },
		} {
			b.Run(fmt.Sprintf("%s-%d", name, n), func(b *testing.B) {
				for b.Loop() {
					f()
				}
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/device")
			})
		}
	}
}

func fatal(b *testing.B, err error) {
	if err != nil {
		b.Fatal(err)
	}
}
