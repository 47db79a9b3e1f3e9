package transport

// Reason is why something failed, as one word of the closed list of wire §7.
// Reasons are sent to peers and logged, and callers branch on them; the text beside
// them is for people. The empty Reason means success. Strings and not numbers, so that a log, an API and a person see
// one word; a peer's unknown word is kept as it is.
type Reason string

// The reasons of wire §7, in its order. The list is append-only.
const (
	Refused         Reason = "refused"
	Timeout         Reason = "timeout"
	Unreachable     Reason = "unreachable"
	Reset           Reason = "reset"
	ResetAfterHello Reason = "reset-after-hello"
	PlainHTTP       Reason = "plain-http"
	CaptivePortal   Reason = "captive-portal"
	NotTLS          Reason = "not-tls"
	TLSRefused      Reason = "tls-refused"
	TLSIntercepted  Reason = "tls-intercepted"
	WrongRoot       Reason = "wrong-root"
	Expired         Reason = "expired"
	ClockWrong      Reason = "clock"
	WrongKind       Reason = "wrong-kind"
	WrongName       Reason = "wrong-name"
	BadCertificate  Reason = "bad-certificate"
	WrongProtocol   Reason = "wrong-protocol"
	DNS             Reason = "dns"
	BadTime         Reason = "bad-time"
	Protocol        Reason = "protocol"
	Unsupported     Reason = "unsupported"
	BadCode         Reason = "bad-code"
	BadCSR          Reason = "bad-csr"
	NotEnrolled     Reason = "not-enrolled"
	WrongKey        Reason = "wrong-key"
	Revoked         Reason = "revoked"
	Busy            Reason = "busy"
	Replaced        Reason = "replaced"
	NoDevice        Reason = "no-device"
	Offline         Reason = "offline"
	NoRelay         Reason = "no-relay"
	Policy          Reason = "policy"
	BadGrant        Reason = "bad-grant"
	GrantExpired    Reason = "grant-expired"
	GrantUsed       Reason = "grant-used"
	GrantAudience   Reason = "grant-audience"
	GrantHolder     Reason = "grant-holder"
	GrantPeer       Reason = "grant-peer"
	NoPeer          Reason = "no-peer"
	WrongPeer       Reason = "wrong-peer"
	LinkLost        Reason = "link-lost"
	Closed          Reason = "closed"
	Moved           Reason = "moved"
	Locked          Reason = "locked"
	Internal        Reason = "internal"
	Pending         Reason = "pending"
	Stale           Reason = "stale"
	NotStated       Reason = "not-stated"
	WrongDevice     Reason = "wrong-device"
	BadAddress      Reason = "bad-address"
	ProxyAuth       Reason = "proxy-auth"
	ProxyRefused    Reason = "proxy-refused"
	PeerRestarted   Reason = "peer-restarted"
	NoSession       Reason = "no-session"
	DomainTaken     Reason = "domain-taken"
	CodeTaken       Reason = "code-taken"
	ListFull        Reason = "list-full"
	InviteUsedTwice Reason = "invite-used-twice"
	Cloned          Reason = "cloned"
	Damaged         Reason = "damaged"
	Ended           Reason = "ended"
	SessionMax      Reason = "session-max"
	SessionIdle     Reason = "session-idle"
)

// A Class says what somebody can do about a Reason. Programs map it to exit codes (docs/spec/cli.md). The classes stand
// beside the list, because three programs had three tables of which reasons are a refusal, and the tables had begun to
// differ.
type Class int

// The classes. A reason that is not of the list, such as one of a newer peer, has ClassNone.
const (
	ClassNone        Class = iota
	ClassUnreachable       // something on the way, or the other end, cannot be reached now
	ClassUnproven          // a certificate does not prove its holder, or cannot be judged at this time
	ClassUnknown           // the other end does not know us by our key: enroll, or log in
	ClassRefused           // somebody has decided: to try again changes nothing
	ClassFailed            // this attempt failed; the next one may not, or an end has a fault
)

// Class returns the class of a reason. reason_test.go checks that each of the list has one.
func (r Reason) Class() Class {
	switch r {
	case Refused, Timeout, Unreachable, Reset, ResetAfterHello, PlainHTTP, CaptivePortal, NotTLS, TLSRefused, TLSIntercepted,
		WrongProtocol, DNS, BadTime, Offline, NoRelay, NoPeer, LinkLost, ProxyAuth, ProxyRefused:
		return ClassUnreachable
	case WrongRoot, Expired, ClockWrong, WrongKind, WrongName, BadCertificate, WrongPeer, WrongDevice:
		return ClassUnproven
	case NotEnrolled, WrongKey:
		return ClassUnknown
	case BadCode, BadCSR, Revoked, Policy, Locked, NotStated, DomainTaken, InviteUsedTwice, Cloned, Ended:
		return ClassRefused
	case Protocol, Unsupported, Busy, Replaced, NoDevice, BadGrant, GrantExpired, GrantUsed, GrantAudience, GrantHolder,
		GrantPeer, Closed, Moved, Internal, Pending, Stale, BadAddress, PeerRestarted, NoSession, CodeTaken, ListFull, Damaged,
		SessionMax, SessionIdle:
		return ClassFailed
	}
	return ClassNone
}

// Error is a failure with its Reason. It is what every operation of this
// package and of its sub-packages returns when the reason is known. It has one reason; a search has one for each
// candidate, see DialError.
type Error struct {
	Reason Reason
	Op     string // what failed, on what: "join relay r1"
	Err    error  // the cause, or nil
}

// Error returns what failed, the reason and the cause.
func (e *Error) Error() string {
	s := string(e.Reason)
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
