// Package api holds the bodies of the Access Server's HTTP API (access §6): plain types, for the server that answers and
// the Manager that asks. There is no HTTP in it.
//
// A time that is not known is left out of the JSON. The strings of an answer are the server's word: whoever prints them
// filters them first.
package api

import (
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

// Prefix is what all paths begin with.
const Prefix = "/api/v1"

// Limits of access §6.
const (
	MaxBodyBytes = 96 << 10 // of a request: the longest list, and beside it the statements about its signer
	DefaultLimit = 100      // entries in one answer, when the request has no `limit`
	MaxLimit     = 1000     // the most that a request may ask for
)

// The parameters of a list's query: at most `limit` entries, those that follow the cursor `after`. Devices can be chosen by
// `state` and by `query`, a part of the name or the begin of the UID.
const (
	ParamLimit = "limit"
	ParamAfter = "after"
	ParamState = "state"
	ParamQuery = "query"
	ParamNode  = "node" // of an audit chain
	// Audit records can be chosen by the device that they are about, by the user who did it or to whom it was done, and by
	// the time (RFC 3339) from which on they are wanted.
	ParamDevice = "device"
	ParamUser   = "user"
	ParamSince  = "since"
	// ParamReason says why a session is ended: DELETE /sessions/{session}.
	ParamReason = "reason"
)

// LoginRequest asks for a user's certificate: POST /login (access §6). The founder of a domain has a server's code: Code,
// User, the domain key, and his own hawser-user and hawser-key, which it has signed. Everybody else has Lookup and Auth of
// an owner's code, which says who he is.
type LoginRequest struct {
	Code       string             `json:"code,omitempty"`
	User       string             `json:"user,omitempty"`
	DomainKey  identity.PublicKey `json:"domain_key,omitzero"`
	Statements []string           `json:"statements,omitempty"`
	Lookup     string             `json:"lookup,omitempty"`
	Auth       []byte             `json:"auth,omitempty"` // 32 bytes
	CSR        []byte             `json:"csr"`            // DER
}

// LoginAnswer is a user's first certificate, and where the Access Servers are.
type LoginAnswer struct {
	Chain  string           `json:"chain"` // PEM: leaf, issuing, root
	Domain string           `json:"domain"`
	User   string           `json:"user"`
	Hosts  []string         `json:"hosts"`
	Ports  []transport.Port `json:"ports"`
	wire.Invitation
}

// RenewRequest asks for a new certificate for the key of the present one: POST /renew (access §3).
type RenewRequest struct {
	CSR []byte `json:"csr"` // DER
}

// RenewAnswer is the new certificate.
type RenewAnswer struct {
	Chain       string `json:"chain"`                  // PEM
	RefusedKeys []byte `json:"refused_keys,omitempty"` // as the root has signed them (identity §18)
}

// NewCode is an owner's code as the server gets it (identity §13): nothing of it opens the invitation, or makes another one.
type NewCode struct {
	Lookup string `json:"lookup"`
	Hash   []byte `json:"hash"` // of Auth, 32 bytes
	MAC    []byte `json:"mac"`  // of the invitation, 32 bytes
	List   uint64 `json:"list"` // serial of the newest list that the maker knew
	// The subject's statement, the invite, then the statements about the keys that signed them, in the order of a chain:
	// none of the domain key, and of a user's own key itself first.
	Statements []string `json:"statements"`
}

// CodeOf is what the server gets of a code and its invitation into the infrastructure of this root. signers are the
// statements about the admin's key that signed it, nil for the domain key.
func CodeOf(code identity.OwnerCode, i identity.Invitation, root identity.SPKI, signers []string) (NewCode, error) {
	mac, err := i.MAC(code, root)
	if err != nil {
		return NewCode{}, err
	}
	hash := identity.AuthHash(code.Auth())
	return NewCode{Lookup: code.LookupID(), Hash: hash[:], MAC: mac[:], List: i.List,
		Statements: append([]string{i.Subject.JWS, i.Invite.JWS}, signers...)}, nil
}

// DeviceRequest makes a device: POST /devices (access §6). The statement in Code says its UID and name. Reason code-taken:
// the UID or the lookup id is used already.
type DeviceRequest struct {
	Code NewCode `json:"code"`
}

// BatchRequest is a piece of a batch, one code for several devices: POST /batches. The pieces of one batch have the same
// Lookup, Hash, List and Signers. Reason code-taken: the lookup id, a slot or a UID is used already.
type BatchRequest struct {
	Lookup  string    `json:"lookup"`
	Hash    []byte    `json:"hash"`    // as in NewCode
	List    uint64    `json:"list"`    // likewise
	Signers []string  `json:"signers"` // the statements about the admin's key that signed, if one did
	Slots   []NewSlot `json:"slots"`
}

// NewSlot is one device of a batch. Its invite has the number.
type NewSlot struct {
	MAC        []byte   `json:"mac"`        // of this slot's invitation
	Statements []string `json:"statements"` // the device's, and its invite
}

// Batch is a batch of which a piece was taken.
type Batch struct {
	Lookup  string    `json:"lookup"`
	Expires time.Time `json:"expires"` // of the code
}

// BatchEnded says how many devices waited for a gateway, and are revoked now: POST /batches/{lookup}/end.
type BatchEnded struct {
	Lookup  string `json:"lookup"`
	Devices int    `json:"devices"`
}

// Claim is a gateway that waits to be claimed, as this server sees it: GET /claims/{lookup}?hash=HEX. Nothing in it is
// proven but that it has the code.
type Claim struct {
	Lookup  string            `json:"lookup"`
	Address string            `json:"address"`
	Hints   map[string]string `json:"hints"` // never null
	Since   time.Time         `json:"since"` // when it was first heard
	Seen    time.Time         `json:"seen"`  // when it was last heard
}

// ParamHash is the parameter of GET /claims/{lookup}: the hash of the code's auth, in hex.
const ParamHash = "hash"

// UserRequest makes a user, POST /users, or gives one a new code, POST /users/{user}/code. The statement in Code says who.
type UserRequest struct {
	Code NewCode `json:"code"`
}

// TimeRequest asks for signed time (identity §6): POST /time. Nonce is 32 random bytes.
type TimeRequest struct {
	Nonce []byte `json:"nonce"`
}

// TimeAnswer is signed time for the nonce, without a UID, bound to the leaf of the connection.
type TimeAnswer struct {
	Time []byte `json:"time"`
}

// LogoutRequest ends the validity of the key that asks, or of all keys of the user: POST /logout (access §6).
type LogoutRequest struct {
	All bool `json:"all,omitempty"`
}

// UserRevocation shuts a user out, or these of his keys alone: POST /users/{user}/revoke.
type UserRevocation struct {
	Statements []string        `json:"statements"`
	Keys       []identity.SPKI `json:"keys,omitempty"`
}

// NewSubject is a device or user that waits for whoever has the code. UID is zero for a user.
type NewSubject struct {
	UID     identity.UID `json:"uid,omitzero"`
	Name    string       `json:"name"`
	Expires time.Time    `json:"expires"` // of the code
}

// RelayRequest makes a relay: POST /relays (access §6). Hosts and Ports are where clients reach it, whatever it says itself;
// no ports: the default ones.
type RelayRequest struct {
	Name  string           `json:"name"`
	Hosts []string         `json:"hosts"`
	Ports []transport.Port `json:"ports,omitempty"`
}

// User is USER of access §6.
type User struct {
	Name    string        `json:"name"`
	Role    identity.Role `json:"role"` // by the newest statement that the server has; empty: it has none
	Created time.Time     `json:"created"`
	Revoked time.Time     `json:"revoked,omitzero"`
	Ends    time.Time     `json:"ends,omitzero"` // of the statement
	Keys    []UserKey     `json:"keys"`          // never null
}

// UserKey is one machine on which a user is logged in.
type UserKey struct {
	SPKI     identity.SPKI `json:"spki_sha256"`
	Login    time.Time     `json:"login"`
	NotAfter time.Time     `json:"not_after"` // of its certificate
}

// Users is all users of the domain, ordered by name: GET /users.
type Users struct {
	Users []User `json:"users"`
}

// Statements is a page of what the server has of the caller's domain, oldest first: GET /statements. As a request, POST
// /statements, it brings new ones, 64 KiB at most.
type Statements struct {
	Statements []string `json:"statements"`
	Next       string   `json:"next,omitempty"` // the cursor of what follows; empty: that was all
	// DomainReset is the root's last word that the domain has another key (identity §12.2), on every page; not in a request.
	DomainReset []byte `json:"domain_reset,omitempty"`
}

// NewRelay is a relay that waits for its machine.
type NewRelay struct {
	Name    string    `json:"name"`
	Code    string    `json:"code"` // the activation code, shown once
	Expires time.Time `json:"expires"`
}

// Device is DEVICE of access §6.
type Device struct {
	UID      identity.UID      `json:"uid"`
	Name     string            `json:"name"`
	Folder   string            `json:"folder"` // empty for none
	Domain   string            `json:"domain"`
	State    DeviceState       `json:"state"`
	Online   bool              `json:"online"`
	Address  string            `json:"address"`        // of its control connection; empty when offline
	Since    time.Time         `json:"since,omitzero"` // of its control connection
	Created  time.Time         `json:"created"`
	NotAfter time.Time         `json:"not_after,omitzero"` // of its certificate
	SPKI     identity.SPKI     `json:"spki_sha256"`
	Hints    map[string]string `json:"hints"`  // what it says of its hardware; never null
	Lookup   string            `json:"lookup"` // lookup id of its newest code, which a batch shares
	Cloned   *Clone            `json:"cloned,omitempty"`
}

// Clone is a device of which there are two, or were: somebody has copied its key (wire §4.11).
type Clone struct {
	Since    time.Time     `json:"since"`
	Accepted identity.SPKI `json:"accepted,omitzero"` // the fresh key that the owner has chosen; its machine has not come yet
	Keys     []FreshKey    `json:"keys"`              // never null
}

// FreshKey is a key that one of the machines has made.
type FreshKey struct {
	Key      identity.PublicKey `json:"key"`
	Address  string             `json:"address"`
	Instance string             `json:"instance"` // of its process
	Since    time.Time          `json:"since"`    // it was shown first
	At       time.Time          `json:"at"`       // and last
}

// AcceptRequest chooses one of the machines of a cloned device: POST /devices/{device}/accept. The statements state its fresh
// key, and list what was stated before.
type AcceptRequest struct {
	SPKI       identity.SPKI `json:"spki_sha256"`
	Statements []string      `json:"statements"`
}

// DeviceState is where a device is in its life.
type DeviceState string

// The states of a device (access §6).
const (
	StatePending  DeviceState = "pending"  // waits for its gateway
	StateEnrolled DeviceState = "enrolled" // has a key
	StateRevoked  DeviceState = "revoked"  // shut out for good
	StateReleased DeviceState = "released" // by its owner; it forgets who it is when it hears of it
)

// Devices is a page of the devices of a domain, ordered by name: GET /devices.
type Devices struct {
	Devices []Device `json:"devices"`
	Next    string   `json:"next"` // the cursor of what follows; empty: that was all
}

// Relays is a page of the relays that are online, ordered by name: GET /relays.
type Relays struct {
	Relays []wire.Relay `json:"relays"`
	Next   string       `json:"next"` // the cursor of what follows; empty: that was all
}

// RegisteredRelay is a relay as who runs the infrastructure sees it.
type RegisteredRelay struct {
	Name     string           `json:"name"`
	State    DeviceState      `json:"state"` // pending, enrolled or revoked
	Online   bool             `json:"online"`
	Address  string           `json:"address"`        // of its control connection; empty when offline
	Since    time.Time        `json:"since,omitzero"` // of its control connection
	Hosts    []string         `json:"hosts"`          // where clients reach it now; never null
	Ports    []transport.Port `json:"ports"`          // never null
	Pipes    int              `json:"pipes"`          // sessions that it carries
	Max      int              `json:"max"`            // that it can carry; 0: not known
	Created  time.Time        `json:"created"`
	NotAfter time.Time        `json:"not_after,omitzero"` // of its certificate
	SPKI     identity.SPKI    `json:"spki_sha256"`
}

// RegisteredRelays is the answer of GET /relays/registered.
type RegisteredRelays struct {
	Relays []RegisteredRelay `json:"relays"`
}

// Measurements is what the caller's Manager has measured: POST /measurements (wire §4.8).
type Measurements = wire.Measurements

// SessionRequest asks for a session: POST /sessions (access §5.1).
type SessionRequest struct {
	Device         string `json:"device"`          // UID, name, or folder and name joined by "/"
	SessionVersion int    `json:"session_version"` // that the Manager speaks (session §1)
}

// Session is an open session with a device that the caller sees.
type Session struct {
	ID     string       `json:"id"`
	Device identity.UID `json:"device"`
	Name   string       `json:"name"` // of the device
	User   string       `json:"user"`
	Relay  string       `json:"relay"`
	Since  time.Time    `json:"since"`
}

// Sessions is a page of the open sessions, oldest first: GET /sessions.
type Sessions struct {
	Sessions []Session `json:"sessions"`
	Next     string    `json:"next"` // the cursor of what follows; empty: that was all
}

// MoveRequest asks for a session to go on at another relay: POST /sessions/{session}/move (access §5.2).
type MoveRequest struct {
	Epoch  int              `json:"epoch"`  // the one that was lost
	Reason transport.Reason `json:"reason"` // why, for the audit log
}

// SessionAnswer is the Manager's offer for a session that was opened or moved.
type SessionAnswer struct {
	Offer wire.Offer `json:"offer"`
}

// Decision is DECISION of access §8: which relay carries a session with a device, and why.
// GET /devices/{device}/relays answers with it.
type Decision struct {
	Device    identity.UID  `json:"device"`
	At        time.Time     `json:"at"`
	Chosen    string        `json:"chosen"`    // empty: no relay can carry the session
	Incumbent string        `json:"incumbent"` // chosen by the decision before; empty: there was none
	Relays    []RelayChoice `json:"relays"`    // best first
}

// RelayChoice is what a Decision says of one relay.
type RelayChoice struct {
	Name    string    `json:"name"`
	Manager *Measured `json:"manager"` // nil: not measured
	Runtime *Measured `json:"runtime"` // nil: not measured
	Pipes   int       `json:"pipes"`   // sessions that it carries
	Max     int       `json:"max"`     // that it can carry
	ScoreMS float64   `json:"score_ms"`
	Verdict Verdict   `json:"verdict"`
	Reason  string    `json:"reason"` // why it is not chosen; empty for the chosen one
}

// Verdict is how a relay fared in a Decision.
type Verdict string

// The verdicts of access §8.
const (
	VerdictChosen Verdict = "chosen"
	VerdictLost   Verdict = "lost" // another one is better
	VerdictOut    Verdict = "out"  // not compared at all
)

// Measured is M of access §8: what one end has measured of a relay, or the reason why it could not.
type Measured struct {
	RTTMS    float64          `json:"rtt_ms"`
	JitterMS float64          `json:"jitter_ms"`
	LossPct  int              `json:"loss_pct"`
	Port     transport.Port   `json:"port"`
	Way      string           `json:"way"`
	Reason   transport.Reason `json:"reason"` // empty: measured
	At       time.Time        `json:"at"`
}

// Problem is the body of every answer that is an error: a problem document (RFC 9457) with our stable code (access §6).
type Problem struct {
	Type   string           `json:"type"` // always about:blank
	Title  string           `json:"title"`
	Status int              `json:"status"`
	Detail string           `json:"detail"`
	Code   transport.Reason `json:"code"` // a reason of wire §7, or one of the codes below
}

// ProblemType is the media type of a Problem.
const ProblemType = "application/problem+json"

// The codes of access §6 beside the reasons of wire §7. Both stand in the same place of a transport.Error.
const (
	BadRequest       transport.Reason = "bad-request"
	NotFound         transport.Reason = "not-found"
	MethodNotAllowed transport.Reason = "method-not-allowed"
	NameTaken        transport.Reason = "name-taken"
	NotLoggedIn      transport.Reason = "not-logged-in"
	TooLarge         transport.Reason = "too-large"
)
