// Package identity says who somebody is: names, keys, certificates, signed time, codes, and statements: what the owner of a
// domain has signed.
//
// It is pure: bytes in, values out. It reads no clock, file or network, and starts no goroutine; whoever
// judges dates passes now. Values are safe for concurrent use as long as nobody changes them. What it
// accepts and makes is laid down in docs/spec/identity.md; comments cite its sections as "identity §n".
//
// The example of the package makes an authority, issues a certificate and verifies it.
//
// Every refusal of bytes from outside is an [*Error]; its [Fault] is stable.
package identity
