//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// What dm-log-writes writes, all little endian (the kernel's dm-log-writes.c): a first sector with the number of notes,
// then each note in a sector of its own, followed by the bytes that were written.
const (
	logMagic    = 0x6a736677736872
	sectorUnit  = 512
	flagDiscard = 1 << 2
	flagMark    = 1 << 3
	noteSize    = 32
)

// note is one write, or a mark.
type note struct {
	at    int64 // in the disk, in bytes
	bytes []byte
	mark  string
}

// readLog returns the notes in the order in which the disk had finished the writes.
func readLog(r io.ReaderAt) ([]note, error) {
	head := make([]byte, noteSize)
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, err
	}
	count, size := binary.LittleEndian.Uint64(head[16:]), int64(binary.LittleEndian.Uint32(head[24:]))
	// The bounds are there for a LOG that is something else: its numbers would be sizes to allocate.
	if binary.LittleEndian.Uint64(head) != logMagic || size < sectorUnit || size > 1<<16 || count > 1<<20 {
		return nil, errors.New("no log of writes")
	}
	notes := make([]note, 0, count)
	sector := make([]byte, size)
	for at := size; uint64(len(notes)) < count; at += size {
		if _, err := r.ReadAt(sector, at); err != nil {
			return nil, fmt.Errorf("read note %d: %w", len(notes), err)
		}
		n := note{at: int64(binary.LittleEndian.Uint64(sector)) * size}
		length, flags := int64(binary.LittleEndian.Uint64(sector[8:]))*size, binary.LittleEndian.Uint64(sector[16:])
		switch {
		case flags&flagMark != 0:
			n.mark = string(sector[noteSize : noteSize+min(binary.LittleEndian.Uint64(sector[24:]), uint64(size)-noteSize)])
		case flags&flagDiscard != 0: // it has no bytes here, and those on the disk may stay
		case length > 16<<20:
			return nil, fmt.Errorf("note %d of %d bytes", len(notes), length)
		default:
			n.bytes = make([]byte, length)
			if _, err := r.ReadAt(n.bytes, at+size); err != nil && length > 0 {
				return nil, fmt.Errorf("read bytes of note %d: %w", len(notes), err)
			}
			at += length
		}
		notes = append(notes, n)
	}
	return notes, nil
}
