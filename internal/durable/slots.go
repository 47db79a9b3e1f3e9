package durable

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"sync"
)

// MaxPayload is the most that a slot holds, in bytes: all that an owner can state of whom not to let in (identity §16.3) has
// room, also with the greatest numbers.
const MaxPayload = 4 << 20

// A slot file, all integers big endian; nothing may follow the checksum:
//
//	offset  bytes
//	     0      8  magic
//	     8      8  sequence, 1 … 2^64-2
//	    16      4  length n of the payload, at most MaxPayload
//	    20      n  payload
//	  20+n     32  SHA-256 of all before it
const (
	slotMagic  = "HAWSLOT1"
	slotHeader = 8 + 8 + 4
	slotMax    = slotHeader + MaxPayload + sha256.Size
)

// Slots keeps one value in two files, NAME.0 and NAME.1, of mode 0600. Save replaces the older of the two, so that a
// file that goes bad costs one generation. The checksum finds accidents; it does not authenticate. Methods may be
// called from several goroutines. A sequence number says which is newer and not a file's time: a gateway's clock may
// have been set back.
type Slots struct {
	paths [2]string
	write func(path string, data []byte, perm fs.FileMode) error

	mu       sync.Mutex // guards all below
	newest   int        // the slot that holds sequence
	sequence uint64     // of the newest whole slot; 0: there is none
}

// OpenSlots looks at the two files NAME.0 and NAME.1 in dir, either of which may be missing or damaged. It fails on a
// file that it is not allowed to read, or that others are (ErrExposed).
func OpenSlots(dir, name string) (*Slots, error) {
	s := &Slots{write: WriteFile}
	for i := range s.paths {
		s.paths[i] = filepath.Join(dir, fmt.Sprintf("%s.%d", name, i))
	}
	if _, err := s.Load(); err != nil && !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	return s, nil
}

// Load returns the payload of the newest whole slot; nil when nothing was ever saved. When there are slot files but
// none is whole, the error is ErrDamaged; Save still works and starts again.
func (s *Slots) Load() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var payload []byte
	var damage []error
	newest, last := 1, uint64(0) // so that the first Save writes slot 0
	for i, path := range s.paths {
		sequence, p, err := readSlot(path)
		switch {
		case errors.Is(err, ErrExposed), errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("load slot: %w", err)
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			damage = append(damage, err)
		case sequence > last:
			newest, last, payload = i, sequence, p
		}
	}
	s.newest, s.sequence = newest, last
	if last == 0 && damage != nil {
		return nil, fmt.Errorf("load slots: %w: %w", ErrDamaged, errors.Join(damage...))
	}
	return payload, nil
}

// Save replaces the older slot by payload under the next sequence number and returns when it is on the medium. After
// an error the value that Load returned before is still there.
func (s *Slots) Save(payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("save slot: %d bytes: %w", len(payload), ErrTooLarge)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	older, next := 1-s.newest, s.sequence+1
	if err := s.write(s.paths[older], encodeSlot(next, payload), 0o600); err != nil {
		return fmt.Errorf("save slot: %w", err)
	}
	s.newest, s.sequence = older, next
	return nil
}

// readSlot fails on a file that cannot be read as well as on one that is damaged: a bad flash block shows up as EIO.
func readSlot(path string) (sequence uint64, payload []byte, err error) {
	b, err := ReadPrivate(path, slotMax)
	if err != nil {
		return 0, nil, err
	}
	sequence, payload, err = parseSlot(b)
	if err != nil {
		return 0, nil, fmt.Errorf("read slot %s: %w", path, err)
	}
	return sequence, payload, nil
}

// encodeSlot puts the length in front and the checksum over everything at the end: a file that was cut off, or whose
// blocks were never written, is found without knowing what is in it.
func encodeSlot(sequence uint64, payload []byte) []byte {
	b := make([]byte, 0, slotHeader+len(payload)+sha256.Size)
	b = append(b, slotMagic...)
	b = binary.BigEndian.AppendUint64(b, sequence)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// parseSlot returns a payload that shares b's memory, never nil.
func parseSlot(b []byte) (sequence uint64, payload []byte, err error) {
	if len(b) < slotHeader+sha256.Size || string(b[:8]) != slotMagic {
		return 0, nil, errors.New("not a slot")
	}
	if n := binary.BigEndian.Uint32(b[16:]); n > MaxPayload || int(n) != len(b)-slotHeader-sha256.Size {
		return 0, nil, errors.New("length does not fit")
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if want := sha256.Sum256(body); !bytes.Equal(want[:], sum) {
		return 0, nil, errors.New("checksum does not fit")
	}
	sequence = binary.BigEndian.Uint64(b[8:])
	if sequence == 0 || sequence == math.MaxUint64 {
		return 0, nil, errors.New("sequence out of range")
	}
	return sequence, body[slotHeader:], nil
}
