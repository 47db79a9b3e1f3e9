// Package identity says who somebody is: names, keys, certificates, signed time and codes.
//
// It is pure: bytes in, values out. It reads no clock, file or network, and starts no goroutine; whoever
// judges dates passes now. Values are safe for concurrent use as long as nobody changes them. What it
// accepts and makes is laid down in docs/spec/identity.md; comments cite its sections as "identity §n".
//
// A server makes its authority once and then names whoever proves a key to it:
//
//	root, err := identity.NewRoot(rootKey, now)
//	issuing, err := root.NewIssuing(issuingKey, now)
//	pub, err := identity.ParseCSR(csr)
//	chain, err := issuing.Issue(identity.Request{
//		Name: identity.DeviceName("plant", uid), Pub: pub, NotBefore: now, NotAfter: now.Add(30 * 24 * time.Hour)})
//
// and a peer is whom its chain proves it to be:
//
//	peer, err := identity.Verify(chain, roots, now, identity.KindDevice)
//	if identity.FaultOf(err) == identity.FaultExpired { … }
//
// Every refusal of bytes from outside is an [*Error]; its [Fault] is stable.
package identity
