// Package wire reads and writes the frames of a Hawser connection (wire §2).
//
// A frame is a type, a length and a payload. Read reads no byte beyond the frame, so
// other bytes may follow it on the connection. Functions block as long as their
// reader or writer does; the caller sets deadlines on the connection. The encoding
// is specified in docs/spec/wire.md.
package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// The header is one word: a type that no peer sends by accident, and a length of 24 bits, so that no reader has to
// think about signs and overflow.
const headerBytes = 4

// A Type is a frame's type (wire §2.2).
type Type byte

// The types of wire §2.2. A number is never used again for something else.
const (
	TypeTimeRequest  Type = 0x01
	TypeTime         Type = 0x02
	TypeFloorReset   Type = 0x03
	TypeRefusedKeys  Type = 0x04
	TypeEnroll       Type = 0x10
	TypeRenew        Type = 0x11
	TypeIdentity     Type = 0x12
	TypeHello        Type = 0x20
	TypeWelcome      Type = 0x21
	TypePool         Type = 0x22
	TypeOffer        Type = 0x23
	TypeOfferAck     Type = 0x24
	TypeEndSession   Type = 0x25
	TypePing         Type = 0x26
	TypePong         Type = 0x27
	TypeRevoked      Type = 0x28
	TypeTimeAgain    Type = 0x29
	TypeMeasurements Type = 0x2a
	TypeLoad         Type = 0x2b
	TypeMeasure      Type = 0x2c
	TypeStatements   Type = 0x2e
	TypeEcho         Type = 0x30
	TypeJoin         Type = 0x40
	TypePaired       Type = 0x41
	TypeData         Type = 0x42
	TypeSwitch       Type = 0x43
	TypeJoinState    Type = 0x63
	TypeJoinStateAck Type = 0x64
	TypeFreshKey     Type = 0x65
	TypeReport       Type = 0x66
	TypeReportAck    Type = 0x67
	TypeRefuse       Type = 0x7f
)

// DataBytes is the most that one data frame carries: with its header it fills one TLS record.
const DataBytes = 16<<10 - headerBytes

// limit returns the largest payload of a type in bytes; ok is false for a type that wire §2.2 does not have. Each type
// has its own, and as small a one as it can live with: what a stranger can make the other end keep is 64 KiB at most.
func limit(t Type) (bytes int, ok bool) {
	const KiB = 1 << 10
	switch t {
	case TypeTimeRequest, TypeTimeAgain:
		return TimeRequestBytes, true
	case TypeFloorReset:
		return identity.FloorResetBytes, true
	case TypePing:
		return pingBytes, true
	case TypePong, TypePaired, TypeSwitch, TypeMeasure:
		return 0, true
	case TypeEcho:
		return 1 * KiB, true
	case TypeTime, TypeOfferAck, TypeEndSession, TypeLoad, TypeJoinState, TypeJoinStateAck, TypeReport, TypeReportAck, TypeRefuse, TypeRefusedKeys:
		return 4 * KiB, true
	case TypeJoin:
		return 8 * KiB, true
	case TypeEnroll, TypeRenew, TypeHello, TypeOffer, TypeMeasurements, TypeFreshKey:
		return 16 * KiB, true
	case TypeData:
		return DataBytes, true
	case TypeIdentity, TypeWelcome, TypePool, TypeRevoked:
		return 64 * KiB, true
	case TypeStatements: // the longest list, and beside it the statements about its signer
		return 96 * KiB, true
	}
	return 0, false
}

// Frame is one frame as it was read. The caller may keep and change the payload.
type Frame struct {
	Type    Type
	Payload []byte
}

// ErrFrame is wrapped by every error about bytes that wire §2 does not allow: an
// unknown type, a length over the type's limit, a payload that does not parse, or an
// unexpected type. The peer is then refused with reason protocol.
var ErrFrame error = &transport.Error{Reason: transport.Protocol, Op: "read frame"}

// Write writes one frame in one call of w.Write, so that it travels as one
// TLS record. A payload over the type's limit is an error, and a bug of the caller.
func Write(w io.Writer, t Type, payload []byte) error {
	max, ok := limit(t)
	if !ok || len(payload) > max {
		return fmt.Errorf("write frame %#02x of %d bytes: over its limit", byte(t), len(payload))
	}
	b := make([]byte, headerBytes+len(payload))
	binary.BigEndian.PutUint32(b, uint32(t)<<24|uint32(len(payload)))
	copy(b[headerBytes:], payload)
	_, err := w.Write(b)
	return err
}

// WriteJSON writes v as the payload of one frame.
func WriteJSON(w io.Writer, t Type, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame %#02x: %w", byte(t), err)
	}
	return Write(w, t, payload)
}

// Read reads one frame. The length is checked against the limit of the type
// before anything is allocated. io.EOF means that the peer closed between two
// frames, io.ErrUnexpectedEOF within one.
func Read(r io.Reader) (Frame, error) {
	var h [headerBytes]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return Frame{}, err
	}
	t, n := Type(h[0]), int(binary.BigEndian.Uint32(h[:])&0xffffff)
	max, ok := limit(t)
	if !ok {
		return Frame{}, fmt.Errorf("%w: unknown type %#02x", ErrFrame, h[0])
	}
	// Before the allocation: a length that lies costs nothing.
	if n > max {
		return Frame{}, fmt.Errorf("%w: type %#02x with %d bytes, limit %d", ErrFrame, h[0], n, max)
	}
	f := Frame{Type: t, Payload: make([]byte, n)}
	if _, err := io.ReadFull(r, f.Payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return f, nil
}

// Expect reads one frame of one of the types. A refuse frame in its place is returned
// as *Refusal, any other type as ErrFrame.
func Expect(r io.Reader, types ...Type) (Frame, error) {
	f, err := Read(r)
	switch {
	case err != nil:
		return Frame{}, err
	case slices.Contains(types, f.Type):
		return f, nil
	case f.Type == TypeRefuse:
		return Frame{}, f.Refusal()
	}
	return Frame{}, fmt.Errorf("%w: type %#02x where %#02x was expected", ErrFrame, byte(f.Type), types)
}

// Decode parses the JSON payload into v. Unknown members are ignored (wire §2.2). The error wraps ErrFrame. An old
// build must understand a newer peer, who may send more than it knows. The first byte is looked at because null and a
// bare number decode into any struct without an error.
func (f Frame) Decode(v any) error {
	if !bytes.HasPrefix(bytes.TrimLeft(f.Payload, " \t\r\n"), []byte("{")) {
		return fmt.Errorf("%w: type %#02x: not a JSON object", ErrFrame, byte(f.Type))
	}
	if err := json.Unmarshal(f.Payload, v); err != nil {
		return fmt.Errorf("%w: type %#02x: %v", ErrFrame, byte(f.Type), err)
	}
	return nil
}

// Refusal is a refuse frame (wire §2.3), received or to be sent. It is an error:
// handlers of a server return it, and clients return it to their callers.
type Refusal struct {
	Reason     transport.Reason
	Text       string
	RetryAfter time.Duration // zero: at once; whole seconds on the wire, at most maxRetryAfter
}

const (
	maxRetryAfter = time.Hour
	maxTextBytes  = 200
)

type refuse struct {
	Reason      transport.Reason `json:"reason"`
	Text        string           `json:"text,omitempty"`
	RetryAfterS int64            `json:"retry_after_s,omitempty"`
}

// Error returns the reason and the peer's text.
func (r *Refusal) Error() string {
	s := "refused by peer: " + string(r.Reason)
	if r.Text != "" {
		s += ": " + r.Text
	}
	return s
}

// Why returns the reason, for transport.ReasonOf.
func (r *Refusal) Why() transport.Reason { return r.Reason }

// Refuse writes r as a refuse frame.
func Refuse(w io.Writer, r *Refusal) error {
	return Write(w, TypeRefuse, r.Payload())
}

// Payload returns r as the payload of a refuse frame (wire §2.3), which a frame of session §3.2 has too. Seconds are
// rounded up: a client that comes a moment too early is refused again.
func (r *Refusal) Payload() []byte {
	retry := min(max(r.RetryAfter, 0), maxRetryAfter)
	m := refuse{r.Reason, Printable(r.Text), int64((retry + time.Second - 1) / time.Second)}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // two strings and a number
	}
	return b
}

// Refusal parses a refuse frame. If it does not parse, the reason is protocol, since
// the peer has refused in any case.
func (f Frame) Refusal() *Refusal {
	r, err := ParseRefusal(f)
	if err != nil {
		return &Refusal{Reason: transport.Protocol, Text: "unreadable refusal"}
	}
	return r
}

// ParseRefusal parses the payload of f, of any type, as one of refuse (wire §2.3), for peers that are not let off with
// one that does not parse. The text is printable and bounded. The error wraps ErrFrame.
func ParseRefusal(f Frame) (*Refusal, error) {
	var m refuse
	if err := f.Decode(&m); err != nil {
		return nil, err
	}
	if !word(m.Reason) {
		return nil, fmt.Errorf("%w: type %#02x: not a reason", ErrFrame, byte(f.Type))
	}
	retry := min(max(m.RetryAfterS, 0), int64(maxRetryAfter/time.Second))
	return &Refusal{m.Reason, Printable(m.Text), time.Duration(retry) * time.Second}, nil
}

// word reports whether r is spelled like a reason. Newer peers may send reasons that
// this build does not know, but nothing that could forge a line of a log.
func word(r transport.Reason) bool {
	for _, c := range r {
		if (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return r != "" && len(r) <= 32
}

// Printable makes a peer's text safe to show: printable ASCII, 200 characters at most. Escape sequences of a peer could
// rewrite what an operator sees.
func Printable(s string) string {
	b := make([]byte, 0, min(len(s), maxTextBytes))
	for i := 0; i < len(s) && len(b) < maxTextBytes; i++ {
		if c := s[i]; c >= ' ' && c <= '~' {
			b = append(b, c)
		} else {
			b = append(b, '?')
		}
	}
	return string(b)
}
