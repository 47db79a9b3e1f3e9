package transport

// Reason says why something did not work, in one word of the closed list of
// wire §7. Reasons cross the wire, stand in logs and are what callers branch
// on; the text beside them is for people. The empty Reason means success.
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
)

// Error is a failure with its Reason. It is what every operation of this
// package and of its sub-packages returns when the reason is known.
type Error struct {
	Reason Reason
	Op     string // what failed, on what: "join relay r1"
	Err    error  // the cause, or nil
}

// Error tells what failed, the reason and the cause.
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
