package identity_test

import (
	"fmt"
	"time"

	"hawser/identity"
)

// A server makes its authority once. Then it names everybody who proves a key to it, and everybody who has the root
// can verify the name.
func Example() {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

	// The server: a root that stays offline, and an issuing CA under it.
	root := must(identity.NewRoot(must(identity.NewKey()), now))
	issuing := must(root.NewIssuing(must(identity.NewKey()), now))

	// The gateway: a key of its own, and a request that proves it has the key.
	request := must(identity.NewCSR(must(identity.NewKey())))

	// The server: the request gives the key; the name is the server's choice.
	uid := must(identity.ParseUID("0123456789abcdef0123456789abcdef"))
	chain := must(issuing.Issue(identity.Request{
		Name: identity.DeviceName("plant", uid), Pub: must(identity.ParseCSR(request)),
		NotBefore: now, NotAfter: now.Add(30 * 24 * time.Hour)}))

	// A peer that pins the root: who is this?
	roots := must(identity.NewRoots(root.Cert))
	peer := must(identity.Verify(chain, roots, now, identity.KindDevice))
	fmt.Println(peer.Name)

	_, err := identity.Verify(chain, roots, now.Add(31*24*time.Hour), identity.KindDevice)
	fmt.Println(identity.FaultOf(err))
	// Output:
	// hawser://plant/device/0123456789abcdef0123456789abcdef
	// expired
}

// People type a code as they like; one wrong character is noticed.
func ExampleParseCode() {
	code, err := identity.ParseCode("0011abcd-efghjkmn pqrstvwx yz023456h")
	fmt.Println(code, code.LookupID(), err)

	_, err = identity.ParseCode("1011-ABCD-EFGH-JKMN-PQRS-TVWX-YZ02-3456H")
	fmt.Println(identity.FaultOf(err))
	// Output:
	// 0011-ABCD-EFGH-JKMN-PQRS-TVWX-YZ02-3456H 0011AB <nil>
	// bad-code
}

// An Access Server answers with signed time. The answer is good for one question, on the connection on which it was
// asked.
func ExampleVerifySignedTime() {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	root := must(identity.NewRoot(must(identity.NewKey()), now))
	access := identity.AccessName("a1")
	timeKey := must(identity.NewKey())
	certificate := must(root.CertifyTimeKey(access, timeKey.Public(), now))
	leaf := must(identity.NewKey()) // that of the server's TLS certificate
	server := identity.Peer{Name: access, SPKI: must(identity.SPKIOf(leaf.Public()))}

	nonce := [32]byte{1, 2, 3} // random, from the client
	answer := must(identity.SignedTime{Nonce: nonce, Time: now, Server: server.SPKI, Sequence: 1}.Sign(timeKey, certificate))

	roots := must(identity.NewRoots(root.Cert))
	signed, err := identity.VerifySignedTime(answer, roots, nonce, server, identity.UID{})
	fmt.Println(signed.Time.UTC().Format(time.RFC3339), err)

	_, err = identity.VerifySignedTime(answer, roots, [32]byte{9}, server, identity.UID{})
	fmt.Println(identity.FaultOf(err))
	// Output:
	// 2026-03-01T08:00:00Z <nil>
	// wrong-nonce
}

// An owner lets a person in: with the domain key, or by an invite that only the holder of a code can use. A gateway that
// pinned the domain key judges the chain that the person shows, for the key of the TLS connection on which he shows it.
func ExampleVerifier_Judge() {
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	domainKey := must(identity.NewKey())
	owner := identity.Pinned{Domain: "plant", Key: must(identity.NewPublicKey(domainKey.Public()))}
	serial := must(identity.NextSerial(0, now))

	// The owner's Manager: a statement about bob, an invite, and a code for him.
	code := identity.NewOwnerCode()
	bob := identity.Subject{User: "bob"}
	user := must(identity.Sign(identity.UserStatement{Domain: "plant", User: "bob", Role: identity.RoleOperator,
		Scope: &identity.Scope{Devices: []string{"north/hall"}, Targets: []string{"192.168.1.0/24:502"}},
		Exp:   now.AddDate(1, 0, 0).Unix(), Serial: serial}, domainKey))
	invite := must(identity.Sign(identity.InviteStatement{Domain: "plant", Subject: bob, Key: must(identity.NewPublicKey(code.InviteKey(0).Public())),
		Exp: now.Add(identity.UserInviteLifetime).Unix(), Serial: serial}, domainKey))

	// Bob's Manager: the code states his own key.
	bobs := must(identity.NewPublicKey(must(identity.NewKey()).Public()))
	key := must(identity.Sign(identity.KeyStatement{Domain: "plant", Subject: bob, Key: bobs, Label: "laptop"}, code.InviteKey(0)))

	// The gateway: who is at the other end, and what may he do?
	peer := identity.Peer{Name: identity.UserName("plant", "bob"), SPKI: bobs.SPKI()}
	verdict, err := identity.Verifier{Pinned: owner}.Judge([]string{user.JWS, key.JWS, invite.JWS}, peer, now)
	fmt.Println(verdict.User.Role, verdict.Confirmed, verdict.Until.Format(time.DateOnly), err)

	// The owner shuts him out, and the gateway has heard of it.
	list := must((*identity.Lists)(nil).Next(owner, []identity.Entry{{SPKI: bobs.SPKI(), Until: now.Add(identity.EntryLifetime).Unix()}}, now))
	lists := must((*identity.Lists)(nil).Add(must(identity.Sign(list, domainKey)), nil, owner, identity.Holder{}, now))
	_, err = identity.Verifier{Pinned: owner, Lists: lists}.Judge([]string{user.JWS, key.JWS, invite.JWS}, peer, now)
	fmt.Println(identity.FaultOf(err))
	// Output:
	// operator false 2026-03-18 <nil>
	// revoked
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
