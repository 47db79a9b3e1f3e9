package mux

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

const (
	ackBytes    = 8 + 8
	resumeBytes = 1 + 8 + 32
	// maxCredit is the largest credit of any end (session §6). A first credit above it would let a peer make this end
	// keep more than the program was ever tried with.
	maxCredit = 16 << 20
	// maxStatements and maxStatementBytes bound the statements of one hello or chain (session §6).
	maxStatements     = 8
	maxStatementBytes = 16 << 10
)

// appendUint64 appends v: the payload of credit.
func appendUint64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// parseUint64 parses a payload of credit, whose length parseHeader has checked.
func parseUint64(payload []byte) uint64 { return binary.BigEndian.Uint64(payload) }

// ackPayload is that of ack (session §3.6).
type ackPayload struct {
	Count uint64        // counted frames received in this session
	At    time.Duration // when the newest of them came, by a clock of the sender's that is good for differences only
}

// maxClock keeps differences of clocks away from where a time.Duration overflows; it is 35 years.
const maxClock = 1 << 50 * time.Microsecond

// encode needs an At from 0 to below maxClock. It is sent in whole microseconds.
func (p ackPayload) encode() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, ackBytes), p.Count)
	return binary.BigEndian.AppendUint64(b, uint64(p.At/time.Microsecond))
}

// parseAck parses an ack, whose length parseHeader has checked. Whether the count is possible is for the caller to say.
func parseAck(payload []byte) (ackPayload, error) {
	at := binary.BigEndian.Uint64(payload[8:])
	if at >= uint64(maxClock/time.Microsecond) {
		return ackPayload{}, fmt.Errorf("%w: ack at %d µs", ErrFrame, at)
	}
	return ackPayload{binary.BigEndian.Uint64(payload), time.Duration(at) * time.Microsecond}, nil
}

// helloPayload is that of hello (session §3.3). Members that this build does not know are ignored.
type helloPayload struct {
	Version  int      `json:"version"`
	Session  string   `json:"session"`
	Epoch    int      `json:"epoch"`
	Features []string `json:"features,omitempty"`
	List     uint64   `json:"list,omitempty"`
	Device   uint64   `json:"device,omitempty"`
	// DomainKey is the hash of the domain key that this end has pinned.
	DomainKey  identity.SPKI `json:"domain_key,omitzero"`
	Statements []string      `json:"statements,omitempty"`
	StaleS     int           `json:"stale_s,omitempty"`
	MaxS       int           `json:"max_s,omitempty"`
	AuditHead  []byte        `json:"audit_head,omitempty"` // wire §9.3; whoever keeps it parses it
}

func (p *helloPayload) encode() []byte { return encodeJSON(p) }

// parseHello parses and bounds a hello. Whether version, session and epoch are the right ones is for the caller to say.
func parseHello(payload []byte) (helloPayload, error) {
	var p helloPayload
	if err := decodeJSON(typeHello, payload, &p); err != nil {
		return helloPayload{}, err
	}
	if err := checkStatements(p.Statements); err != nil {
		return helloPayload{}, err
	}
	// A day is more than any owner means, and no multiple of it overflows a time.
	const most = 24 * 3600
	if p.Version < 0 || p.Epoch < 0 || p.StaleS < 0 || p.StaleS > most || p.MaxS < 0 || p.MaxS > most {
		return helloPayload{}, fmt.Errorf("%w: hello with a number out of range", ErrFrame)
	}
	return p, nil
}

// resumePayload is that of resume (session §3.4).
type resumePayload struct {
	Have  bool   // this end still has the session
	Count uint64 // counted frames that this end has received
	MAC   [32]byte
}

func (p *resumePayload) encode() []byte {
	b := make([]byte, 1, resumeBytes)
	if p.Have {
		b[0] = 1
	}
	b = binary.BigEndian.AppendUint64(b, p.Count)
	return append(b, p.MAC[:]...)
}

// parseResume parses a resume, whose length parseHeader has checked. An end without a session sends zeros and nothing
// else, so that there is one form of it.
func parseResume(payload []byte) (resumePayload, error) {
	p := resumePayload{
		Have: payload[0] == 1, Count: binary.BigEndian.Uint64(payload[1:]), MAC: [32]byte(payload[9:resumeBytes]),
	}
	if payload[0] > 1 || !p.Have && p != (resumePayload{}) {
		return resumePayload{}, fmt.Errorf("%w: resume with have %d that does not fit the rest", ErrFrame, payload[0])
	}
	return p, nil
}

// openPayload is that of open. Service and Target are as the peer sent them: what this end does not know or allow is
// refused, not fatal, and a log must quote it.
type openPayload struct {
	Service wire.Service `json:"service"`
	Target  string       `json:"target"`
	Credit  uint64       `json:"credit"` // bytes, at most maxCredit
}

func (p *openPayload) encode() []byte { return encodeJSON(p) }

func parseOpen(payload []byte) (openPayload, error) {
	var p openPayload
	if err := decodeJSON(typeOpen, payload, &p); err != nil {
		return openPayload{}, err
	}
	return p, checkCredit(p.Credit)
}

// openedPayload is that of opened.
type openedPayload struct {
	Credit uint64 `json:"credit"` // bytes, at most maxCredit
}

func (p *openedPayload) encode() []byte { return encodeJSON(p) }

func parseOpened(payload []byte) (openedPayload, error) {
	var p openedPayload
	if err := decodeJSON(typeOpened, payload, &p); err != nil {
		return openedPayload{}, err
	}
	return p, checkCredit(p.Credit)
}

func checkCredit(n uint64) error {
	if n > maxCredit {
		return fmt.Errorf("%w: a first credit of %d bytes", ErrFrame, n)
	}
	return nil
}

// whyPayload is that of refused, reset and end. Only refused has a RetryAfter.
type whyPayload struct {
	Reason     transport.Reason
	Text       string // printable ASCII, bounded, as in wire §2.3
	RetryAfter time.Duration
}

func (p whyPayload) encode() []byte {
	r := wire.Refusal(p)
	return r.Payload()
}

// parseWhy parses the payload of a frame of type t. The reason is spelled like one, but may be one that this build does
// not know.
func parseWhy(t byte, payload []byte) (whyPayload, error) {
	r, err := wire.ParseRefusal(wire.Frame{Type: wire.Type(t), Payload: payload})
	if err != nil {
		return whyPayload{}, err
	}
	return whyPayload(*r), nil
}

// decodeJSON wants an object, as every payload in JSON is one.
func decodeJSON(t byte, payload []byte, v any) error {
	return wire.Frame{Type: wire.Type(t), Payload: payload}.Decode(v)
}

func encodeJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, bytes and numbers
	}
	return b
}
