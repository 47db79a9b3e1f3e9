package wire

import (
	"encoding/binary"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// TimeRequestBytes is the length of a time-request (wire §3.1).
const TimeRequestBytes = 48

// TimeRequest asks for signed time (wire §3.1):
//
//	0..31   nonce
//	32..47  UID of the asking device, zero when it has none
type TimeRequest [TimeRequestBytes]byte

// NewTimeRequest puts a request together. The nonce must be fresh and random.
func NewTimeRequest(nonce [32]byte, uid identity.UID) (r TimeRequest) {
	copy(r[:32], nonce[:])
	copy(r[32:], uid[:])
	return r
}

// Nonce is what the answer must repeat.
func (r TimeRequest) Nonce() [32]byte { return [32]byte(r[:32]) }

// UID is who asks; nobody has verified it.
func (r TimeRequest) UID() identity.UID { return identity.UID(r[32:]) }

const pingBytes = 4

// Bounds of the interval that a ping announces (wire §4.6).
const (
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

// Grace is how long a peer may be late that promised a frame within next
// (wire §4.6).
func Grace(next time.Duration) time.Duration { return min(next, 15*time.Second) }

// The JSON payloads of wire §4 to §6.
type (
	// Enrol asks for an identity (wire §4.1).
	Enrol struct {
		Code  string            `json:"code"`
		CSR   []byte            `json:"csr"` // DER
		Hints map[string]string `json:"hints,omitempty"`
	}
	// Renew asks for a new certificate for the same key (wire §4.2).
	Renew struct {
		CSR []byte `json:"csr"` // DER
	}
	// Identity answers Enrol and Renew (wire §4.1).
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
	}
	// Welcome answers Hello (wire §4.3).
	Welcome struct {
		HeartbeatS int       `json:"heartbeat_s"`
		Pool       Pool      `json:"pool"`
		RenewAfter time.Time `json:"renew_after"`
	}
	// Pool is every relay that is registered now (wire §4.4).
	Pool struct {
		Relays []Relay `json:"relays"`
	}
	// Relay is where a Relay Server answers.
	Relay struct {
		Name  string           `json:"name"`
		Hosts []string         `json:"hosts"`
		Ports []transport.Port `json:"ports"`
	}
	// Offer tells one end of a session all that it must know (wire §4.5).
	Offer struct {
		Session     string        `json:"session"`
		Epoch       int           `json:"epoch"`
		Role        Role          `json:"role"`
		Relay       Relay         `json:"relay"`
		Grant       string        `json:"grant"` // opaque to the ends
		Peer        string        `json:"peer"`  // name URI
		PeerSPKI    identity.SPKI `json:"peer_spki"`
		Crypto      Crypto        `json:"crypto"`
		Permissions []string      `json:"permissions"`
		User        string        `json:"user"`
	}
	// OfferAck answers an offer; an empty reason is consent (wire §4.5).
	OfferAck struct {
		Session string           `json:"session"`
		Reason  transport.Reason `json:"reason,omitempty"`
	}
	// EndSession says that a session is over (wire §4.5).
	EndSession struct {
		Session string           `json:"session"`
		Reason  transport.Reason `json:"reason"`
	}
	// Revoked is the whole list of keys that are no longer accepted (wire §4.7).
	Revoked struct {
		SPKI []identity.SPKI `json:"spki"`
	}
	// Measurements is what a Runtime has measured (wire §4.8).
	Measurements struct {
		Relays []Measurement `json:"relays"`
	}
	// Measurement is what measuring one relay gave: numbers, or a reason.
	Measurement struct {
		Name     string           `json:"name"`
		RTTUS    int64            `json:"rtt_us,omitempty"`    // median, microseconds
		JitterUS int64            `json:"jitter_us,omitempty"` // microseconds
		LossPct  int              `json:"loss_pct,omitempty"`  // of the echo frames
		Port     transport.Port   `json:"port,omitempty"`
		Way      string           `json:"way,omitempty"`
		Reason   transport.Reason `json:"reason,omitempty"` // empty: measured
	}
	// Load is what a relay says of itself (wire §4.8).
	Load struct {
		Pipes int `json:"pipes"`
		Max   int `json:"max"`
	}
	// Join asks a relay for the other end (wire §5.1).
	Join struct {
		Grant  string `json:"grant"`
		Crypto Crypto `json:"crypto"`
	}
	// Open is the header of a stream (wire §6.3).
	Open struct {
		Service Service `json:"service"`
		Target  string  `json:"target,omitempty"`
	}
)

// Role is the end of a session that an offer or a grant is for.
type Role string

// The two ends of a session.
const (
	RoleRuntime Role = "runtime"
	RoleManager Role = "manager"
)

// Crypto is the form of encryption between an end and the relay, fixed for a
// session by its offers and grants (wire §5).
type Crypto string

// CryptoNested is TLS in TLS: the end-to-end session inside the joined
// connection (wire §5.2).
const CryptoNested Crypto = "nested"

// Service is what a stream asks the Runtime for (wire §6.3). A permission of
// an offer has the same word.
type Service string

// The services of wire §6.3.
const (
	ServiceTCP  Service = "tcp"
	ServicePing Service = "ping"
)
