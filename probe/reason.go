package probe

// Reason is why something was not found or does not count, as one word of a closed
// list (names §7, time §5). The text of errors is for people; code, status and
// netcheck use the Reason.
type Reason string

// Why a name has no address (names §7).
const (
	ReasonBadName     Reason = "bad-name"
	ReasonNoResolver  Reason = "no-resolver"
	ReasonTimeout     Reason = "timeout"
	ReasonUnreachable Reason = "unreachable"
	ReasonNXDomain    Reason = "nxdomain"
	ReasonNoAddress   Reason = "no-address"
	ReasonBadAddress  Reason = "bad-address"
	ReasonServFail    Reason = "servfail"
	ReasonRefused     Reason = "refused"
	ReasonTruncated   Reason = "truncated"
	ReasonBadReply    Reason = "bad-reply"
)

// Why a time does not count (time §5), beside timeout, unreachable and
// bad-reply above.
const (
	ReasonDNS            Reason = "dns"
	ReasonBadSource      Reason = "bad-source"
	ReasonKiss           Reason = "kiss"
	ReasonUnsynchronized Reason = "unsynchronized"
	ReasonStratum        Reason = "stratum"
	ReasonZeroStamp      Reason = "zero-stamp"
	ReasonDelay          Reason = "delay"
	ReasonRootDistance   Reason = "root-distance"
	ReasonBeforeFloor    Reason = "before-floor"
	ReasonBeyondCeiling  Reason = "beyond-ceiling"
	ReasonDuplicate      Reason = "duplicate"
	ReasonOutvoted       Reason = "outvoted"
	ReasonNoMajority     Reason = "no-majority"
)
