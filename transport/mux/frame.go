package mux

import (
	"encoding/binary"
	"fmt"

	"hawser/transport/wire"
)

// The types of session §3.2. A number is never used again for something else.
const (
	typeHello      byte = 0x01
	typeResume     byte = 0x02
	typeUse        byte = 0x03
	typeAck        byte = 0x04
	typePing       byte = 0x05
	typePong       byte = 0x06
	typeChain      byte = 0x07
	typeStatements byte = 0x08
	typeOpen       byte = 0x81
	typeOpened     byte = 0x82
	typeRefused    byte = 0x83
	typeData       byte = 0x84
	typeCredit     byte = 0x85
	typeFin        byte = 0x86
	typeReset      byte = 0x87
	typeEnd        byte = 0x88
	typeDataAsk    byte = 0x89 // data whose sender asks for an ack at once
)

const (
	headerBytes = 8
	// maxData is the most that one data frame carries: with its header it fills one TLS record.
	maxData = 16<<10 - headerBytes
)

// ErrFrame is wrapped by every error about bytes that session §3 and §4 do not allow. It is that of wire: the reason is
// protocol, and every such error is fatal to the session (session §3.7).
var ErrFrame = wire.ErrFrame

// limitOf returns the largest payload of a type in bytes; ok is false for a type that session §3.2 does not have.
func limitOf(t byte) (limit int, ok bool) {
	const KiB = 1 << 10
	switch t {
	case typeUse, typeFin:
		return 0, true
	case typePing, typePong, typeCredit:
		return 8, true
	case typeAck:
		return ackBytes, true
	case typeResume:
		return resumeBytes, true
	case typeOpen, typeOpened, typeRefused, typeReset, typeEnd:
		return 4 * KiB, true
	case typeData, typeDataAsk:
		return maxData, true
	case typeStatements:
		return 16 * KiB, true
	case typeHello, typeChain:
		return 24 * KiB, true
	}
	return 0, false
}

// leastOf returns the smallest payload of a type that has a limit. Where it is the limit, the size is fixed.
func leastOf(t byte) int {
	switch t {
	case typePing, typePong, typeCredit:
		return 8
	case typeAck:
		return ackBytes
	case typeResume:
		return resumeBytes
	case typeStatements:
		return 1 // the flags
	}
	return 0
}

// counted reports whether frames of the type are kept until they are acknowledged. It is a bit and not a table, so that
// an end knows it of every type that a later version may add.
func counted(t byte) bool { return t&0x80 != 0 }

// isData reports whether frames of the type carry the bytes of a stream.
func isData(t byte) bool { return t == typeData || t == typeDataAsk }

// onStream reports whether the type belongs to a stream. The others are of the line as a whole, and so is end, which is
// counted all the same.
func onStream(t byte) bool { return counted(t) && t != typeEnd }

// putHeader writes the header of a frame of n bytes to the first 8 bytes of b.
func putHeader(b []byte, t byte, stream uint32, n int) {
	// Type and length are one word, so that no reader has to think about an integer of three bytes.
	binary.BigEndian.PutUint32(b, uint32(t)<<24|uint32(n))
	binary.BigEndian.PutUint32(b[4:], stream)
}

// appendFrame appends a whole frame to b. The payload must be within the limit of its type.
func appendFrame(b []byte, t byte, stream uint32, payload []byte) []byte {
	var h [headerBytes]byte
	putHeader(h[:], t, stream, len(payload))
	return append(append(b, h[:]...), payload...)
}

// header is a parsed header.
type header struct {
	kind   byte
	stream uint32 // 0 for the line as a whole
	n      int    // bytes of the payload
}

// parseHeader parses the first 8 bytes of b, which receiver has got: it wants a type that exists and that this end may
// get, a length within the type's limits, and a stream where the type has one. What it lets through, the caller may
// allocate. Errors wrap ErrFrame.
func parseHeader(b []byte, receiver wire.Role) (header, error) {
	word := binary.BigEndian.Uint32(b)
	h := header{byte(word >> 24), binary.BigEndian.Uint32(b[4:]), int(word & 0xffffff)}
	most, ok := limitOf(h.kind)
	switch {
	case !ok:
		return header{}, fmt.Errorf("%w: unknown type %#02x", ErrFrame, h.kind)
	case h.n > most || h.n < leastOf(h.kind):
		return header{}, fmt.Errorf("%w: type %#02x with %d bytes, limit %d", ErrFrame, h.kind, h.n, most)
	case onStream(h.kind) != (h.stream != 0):
		return header{}, fmt.Errorf("%w: type %#02x with stream %d", ErrFrame, h.kind, h.stream)
	}
	wrong := wire.Role("") // the end that must not get it
	switch h.kind {
	case typeOpen, typeUse:
		wrong = wire.RoleManager
	case typeOpened, typeRefused:
		wrong = wire.RoleRuntime
	}
	if receiver == wrong {
		return header{}, fmt.Errorf("%w: type %#02x came to the %s", ErrFrame, h.kind, receiver)
	}
	return h, nil
}
