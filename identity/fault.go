package identity

import (
	"crypto/x509"
	"errors"
	"strings"
)

// Fault is the stable reason of a refusal: a closed, append-only list (identity §8).
type Fault string

// The faults, in the order of identity §8.
const (
	FaultMalformed    Fault = "malformed"     // does not parse, too long, or not in its one spelling
	FaultBadName      Fault = "bad-name"      // a name, label, UID or SPKI hash that is none
	FaultBadChain     Fault = "bad-chain"     // not leaf, issuing CA, root
	FaultWrongRoot    Fault = "wrong-root"    // does not lead to a pinned root
	FaultExpired      Fault = "expired"       // a certificate of the path has ended
	FaultNotYetValid  Fault = "not-yet-valid" // a certificate of the path has not begun
	FaultWrongKind    Fault = "wrong-kind"    // another kind or usage than wanted
	FaultWrongKey     Fault = "wrong-key"     // a kind of key we do not use, or not the key it must be
	FaultBadSignature Fault = "bad-signature" // a signature does not verify
	FaultCSRName      Fault = "csr-name"      // a request asks for a name, extension or attribute
	FaultWrongNonce   Fault = "wrong-nonce"   // signed time for another question
	FaultWrongServer  Fault = "wrong-server"  // signed time for another connection
	FaultWrongUID     Fault = "wrong-uid"     // signed time or a floor reset for another device
	FaultBadCode      Fault = "bad-code"      // not a code, or a mistyped one
	FaultRefused      Fault = "refused"       // the authority does not sign this

	FaultNotStated       Fault = "not-stated"        // the owner's statements do not say so
	FaultListFull        Fault = "list-full"         // the lists did not fit; only what the domain key signed counts
	FaultRevoked         Fault = "revoked"           // a list strikes it
	FaultStale           Fault = "stale"             // older than what is known, or made by somebody who knew more
	FaultInviteUsedTwice Fault = "invite-used-twice" // two keys came with one invite
	FaultWrongDevice     Fault = "wrong-device"      // not the device that was asked for
	FaultRefusedKey      Fault = "refused-key"       // the root has refused a key of the path
)

// Error is a refusal. Test its Fault, with [FaultOf]; the rest is for people.
type Error struct {
	Fault  Fault
	Detail string // our own words, never a peer's
	// Issuer is who signed the leaf of a chain that is not ours, or empty. It is the peer's word, but at most
	// 100 characters of a harmless alphabet (identity §5).
	Issuer string
}

// Error tells the fault, the detail and the issuer in one line.
func (e *Error) Error() string {
	s := string(e.Fault) + ": " + e.Detail
	if e.Issuer != "" {
		s += " (issuer " + e.Issuer + ")"
	}
	return s
}

// FaultOf returns the fault in err's tree, or "" if there is none.
func FaultOf(err error) Fault {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Fault
	}
	return ""
}

func refuse(fault Fault, detail string) error {
	return &Error{Fault: fault, Detail: detail}
}

// refuseChain refuses and names the leaf's issuer, so that an intercepting proxy can be told by name.
func refuseChain(fault Fault, detail string, leaf *x509.Certificate) error {
	return &Error{Fault: fault, Detail: detail, Issuer: harmless(leaf.Issuer.String())}
}

const maxIssuerLen = 100 // characters, identity §5

// harmless keeps of s what no log, terminal or page acts on (identity §5).
func harmless(s string) string {
	var b strings.Builder
	for _, r := range s {
		if b.Len() == maxIssuerLen {
			break
		}
		if !isASCIILetterOrDigit(r) && !strings.ContainsRune(" .,_-=()", r) {
			r = '?'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func isASCIILetterOrDigit(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}
