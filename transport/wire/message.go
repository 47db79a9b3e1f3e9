package wire

import (
	"encoding/binary"
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
	// Enroll asks for an identity (wire §4.1).
	Enroll struct {
		Code  string            `json:"code"`
		CSR   []byte            `json:"csr"` // DER
		Hints map[string]string `json:"hints,omitempty"`
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
	}
	// Welcome answers Hello (wire §4.3).
	Welcome struct {
		HeartbeatS int       `json:"heartbeat_s"`
		Pool       Pool      `json:"pool"`
		RenewAfter time.Time `json:"renew_after"`
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
	}
	// OfferAck answers an offer; an empty reason accepts it (wire §4.5).
	OfferAck struct {
		Session string           `json:"session"`
		Reason  transport.Reason `json:"reason,omitempty"`
	}
	// EndSession reports the end of a session (wire §4.5).
	EndSession struct {
		Session string           `json:"session"`
		Reason  transport.Reason `json:"reason"`
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
