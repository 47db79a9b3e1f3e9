package wire

import (
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// SessionVersion is the one version of sessions (session §1).
const SessionVersion = 2

// TimeRequestBytes is the length of a time-request (wire §3.1).
const TimeRequestBytes = 48

// TimeRequest asks for signed time (wire §3.1):
//
//	0..31   nonce
//	32..47  UID of the asking device, zero when it has none
type TimeRequest [TimeRequestBytes]byte

// NewTimeRequest makes a request. The nonce must be random and used once.
func NewTimeRequest(nonce [32]byte, uid identity.UID) (r TimeRequest) {
	copy(r[:32], nonce[:])
	copy(r[32:], uid[:])
	return r
}

// Nonce returns the nonce, which the answer must repeat.
func (r TimeRequest) Nonce() [32]byte { return [32]byte(r[:32]) }

// UID returns the UID of the asking device, which is not verified.
func (r TimeRequest) UID() identity.UID { return identity.UID(r[32:]) }

const pingBytes = 4

// Bounds of the interval that a ping announces (wire §4.6).
const (
	// Without bounds a peer could make the other end answer without pause, or wait for it a day.
	minPing = time.Second
	maxPing = 20 * time.Minute
)

// Ping encodes the payload of a ping: the sender's next frame comes within next,
// which is bounded to 1 s … 20 min.
func Ping(next time.Duration) []byte {
	next = min(max(next, minPing), maxPing)
	return binary.BigEndian.AppendUint32(nil, uint32(next/time.Millisecond))
}

// PingInterval decodes the payload of a ping, bounded to 1 s … 20 min.
func (f Frame) PingInterval() (time.Duration, error) {
	if len(f.Payload) != pingBytes {
		return 0, fmt.Errorf("%w: ping of %d bytes", ErrFrame, len(f.Payload))
	}
	next := time.Duration(binary.BigEndian.Uint32(f.Payload)) * time.Millisecond
	return min(max(next, minPing), maxPing), nil
}

// Grace returns how long after next a frame may come from a peer that announced one within next (wire §4.6). An idle
// mobile link may take seconds to wake; a fast heartbeat means that somebody waits.
func Grace(next time.Duration) time.Duration { return min(next, 15*time.Second) }

// The JSON payloads of wire §4 to §6.
type (
	// Enroll asks for an identity (wire §4.1): a relay by Code, a device by Lookup and Auth of its owner's code.
	Enroll struct {
		Code   string            `json:"code,omitempty"`
		Lookup string            `json:"lookup,omitempty"`
		Auth   []byte            `json:"auth,omitempty"` // 32 bytes
		CSR    []byte            `json:"csr"`            // DER
		Hints  map[string]string `json:"hints,omitempty"`
		// Claim: the code is the gateway's own, and it waits for somebody to claim it (wire §4.1).
		Claim bool `json:"claim,omitempty"`
	}
	// Renew asks for a new certificate for the same key (wire §4.2).
	Renew struct {
		CSR []byte `json:"csr"` // DER
	}
	// Identity answers Enroll and Renew (wire §4.1).
	Identity struct {
		Chain  string       `json:"chain"` // PEM: leaf, issuing, root
		Domain string       `json:"domain,omitempty"`
		UID    identity.UID `json:"uid,omitzero"` // zero for a relay
		Name   string       `json:"name"`
		Invitation
	}
	// Invitation is what the maker of an owner's code says to whoever uses it (identity §13.3). The zero Invitation is
	// none: the answer to a server's code, or to Renew.
	Invitation struct {
		DomainKey identity.PublicKey `json:"domain_key,omitzero"`
		MAC       []byte             `json:"mac,omitempty"`
		List      uint64             `json:"list,omitempty"` // serial of the newest list that the maker knew
		// The subject's statement, the invite, then the statements about the admin's key that signed them, if one did.
		Statements []string `json:"statements,omitempty"`
		// Lists of the domain, with the statements about their signers. They are the server's to choose.
		Lists []string `json:"lists,omitempty"`
	}
	// Hello opens a control connection (wire §4.3).
	Hello struct {
		Version  string            `json:"version"`
		Hints    map[string]string `json:"hints,omitempty"`
		Instance string            `json:"instance"`        // random per process, hex
		Hosts    []string          `json:"hosts,omitempty"` // relays: where clients reach it
		Ports    []transport.Port  `json:"ports,omitempty"`
		// SessionVersion is what a Runtime speaks (session §1).
		SessionVersion int `json:"session_version,omitempty"`
		// List and Device are the serials of the newest list, and of the newest statement of this device, that it has; Key
		// is its own hawser-key.
		List   uint64 `json:"list,omitempty"`
		Device uint64 `json:"device,omitempty"`
		Key    string `json:"key,omitempty"`
		// DomainKey is the hash of the domain key that it has pinned.
		DomainKey identity.SPKI `json:"domain_key,omitzero"`
		// JoinState is the last one that a Runtime has stored for its key (wire §4.11).
		JoinState []byte `json:"join_state,omitempty"`
	}
	// Welcome answers Hello (wire §4.3).
	Welcome struct {
		HeartbeatS int       `json:"heartbeat_s"`
		Pool       Pool      `json:"pool"`
		RenewAfter time.Time `json:"renew_after"`
		Reports    bool      `json:"reports,omitempty"` // the server takes session reports
		// Cloned says that two machines use the Runtime's key: it gets no offers, and shows a fresh key (wire §4.11).
		Cloned bool `json:"cloned,omitempty"`
	}
	// JoinState is what the Runtime stores, and shows in its next hello (wire §4.11). It does not look inside.
	JoinState struct {
		Counter uint64 `json:"counter"`
		State   []byte `json:"state"`
	}
	// JoinStateAck answers JoinState.
	JoinStateAck struct {
		Counter uint64 `json:"counter"` // of the one that is stored now; 0: it could not be stored
	}
	// FreshKey shows a key that the Runtime has made because of Welcome.Cloned.
	FreshKey struct {
		CSR []byte `json:"csr"` // DER
	}
	// Pool lists the relays that are registered now (wire §4.4).
	Pool struct {
		Relays []Relay `json:"relays"`
	}
	// Relay is where a Relay Server answers.
	Relay struct {
		Name  string           `json:"name"`
		Hosts []string         `json:"hosts"`
		Ports []transport.Port `json:"ports"`
	}
	// Offer has everything that one end of a session needs (wire §4.5).
	Offer struct {
		Session     string        `json:"session"`
		Epoch       int           `json:"epoch"`
		Role        Role          `json:"role"`
		Relay       Relay         `json:"relay"`
		Grant       string        `json:"grant"` // opaque to the ends
		Peer        string        `json:"peer"`  // name URI
		PeerSPKI    identity.SPKI `json:"peer_spki"`
		Permissions []string      `json:"permissions"`
		User        string        `json:"user"`
		Statements  []string      `json:"statements,omitempty"` // to the Manager: the chain of the device (identity §15)
	}
	// Statements brings what the receiver lacks (wire §9.4), in any order: lists with the statements about their signers,
	// and what is new about the receiver itself.
	Statements struct {
		Statements []string `json:"statements"`
		// DomainReset is the root's word that the domain has another key (identity §12.2). It is judged first.
		DomainReset []byte `json:"domain_reset,omitempty"`
	}
	// OfferAck answers an offer; an empty reason accepts it (wire §4.5). Text is a stranger's: see Printable.
	OfferAck struct {
		Session string           `json:"session"`
		Reason  transport.Reason `json:"reason,omitempty"`
		Text    string           `json:"text,omitempty"`
	}
	// EndSession reports the end of a session (wire §4.5).
	EndSession struct {
		Session string           `json:"session"`
		Reason  transport.Reason `json:"reason"`
		Text    string           `json:"text,omitempty"`
	}
	// ReportAck answers a session report (wire §4.10). With a reason it is refused for good.
	ReportAck struct {
		Report string           `json:"report"` // ReportID
		Reason transport.Reason `json:"reason,omitempty"`
	}
	// Revoked lists all keys that are no longer accepted (wire §4.7).
	Revoked struct {
		SPKI []identity.SPKI `json:"spki"`
	}
	// Measurements reports what a Runtime has measured (wire §4.8).
	Measurements struct {
		Relays []Measurement `json:"relays"`
	}
	// Measurement is the result for one relay: numbers, or a reason.
	Measurement struct {
		Name     string           `json:"name"`
		RTTUS    int64            `json:"rtt_us,omitempty"`    // median, microseconds
		JitterUS int64            `json:"jitter_us,omitempty"` // microseconds
		LossPct  int              `json:"loss_pct,omitempty"`  // of the echo frames
		Port     transport.Port   `json:"port,omitempty"`
		Way      string           `json:"way,omitempty"`
		Reason   transport.Reason `json:"reason,omitempty"` // empty: measured
	}
	// Load reports how many sessions a relay carries (wire §4.8).
	Load struct {
		Pipes int `json:"pipes"`
		Max   int `json:"max"`
	}
	// Join asks a relay to pair the sender with the other end (wire §5.1).
	Join struct {
		Grant string `json:"grant"`
	}
)

// ReportID names a session report in its answer: the SHA-256 of the JWS, in hex.
func ReportID(jws string) string {
	sum := sha256.Sum256([]byte(jws))
	return hex.EncodeToString(sum[:])
}

// Role is the end of a session that an offer or a grant is for.
type Role string

// The two ends of a session.
const (
	RoleRuntime Role = "runtime"
	RoleManager Role = "manager"
)

// Service is the kind of stream that a Manager asks for (session §4). Permissions of
// an offer use the same words.
type Service string

// The services of session §4 that this version has.
const (
	ServiceTCP  Service = "tcp"
	ServicePing Service = "ping"
)

// Open checks an invitation that came as the answer to a code, for the holder of name in the infrastructure of this root
// (identity §13.3), and states key as that of the holder. It returns the domain key, which is the owner's word by the MAC,
// and the holder's chain, which is still to be judged. Nothing of an answer that is refused may be stored. The errors are
// those of [identity.Invitation.Open].
func (i Invitation) Open(code identity.OwnerCode, root identity.SPKI, name identity.Name, key crypto.PublicKey, label string) (identity.PublicKey, []string, error) {
	if i.DomainKey.IsZero() || len(i.Statements) < 2 {
		return i.DomainKey, nil, fmt.Errorf("%w: an answer to an owner's code without an invitation", ErrFrame)
	}
	subject, err1 := identity.ParseStatement(i.Statements[0])
	invite, err2 := identity.ParseStatement(i.Statements[1])
	if err := errors.Join(err1, err2); err != nil {
		return i.DomainKey, nil, err
	}
	said := identity.Invitation{Domain: name.Domain, Key: i.DomainKey, Subject: subject, Invite: invite, List: i.List}
	signer, err := said.Open(code, i.MAC, root, name)
	if err != nil {
		return i.DomainKey, nil, err
	}
	own, err := identity.NewPublicKey(key)
	if err != nil {
		return i.DomainKey, nil, err
	}
	s := identity.KeyStatement{Domain: name.Domain, Key: own, Label: label}
	if invited := invite.Statement.(identity.InviteStatement); invited.User != "" {
		s.User = invited.User
	} else {
		s.UID = invited.UID
	}
	stated, err := identity.Sign(s, signer)
	if err != nil {
		return i.DomainKey, nil, err
	}
	chain := []string{i.Statements[0], stated.JWS, i.Statements[1]}
	return i.DomainKey, append(chain, i.Statements[2:]...), nil
}
