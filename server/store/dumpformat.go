package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The format of dump §1.
const (
	dumpMagic    = "hawser dump v1\n\x00"
	maxDumpFrame = 1 << 20
	maxColumns   = 64

	frameHeader = 'H'
	frameTable  = 'T'
	frameRow    = 'R'
	frameEnd    = 'E'

	endBytes = 8 + sha256.Size
)

// dumpHeader is the first frame. Store and Incarnation say which history the rows are of: what is restored begins one
// that is later than it and than every other that is known. Schema is that of the tables and no version of the format: a
// dump of an older program goes into the older tables first.
type dumpHeader struct {
	Store       string    `json:"store"`
	Incarnation int64     `json:"incarnation"`
	Schema      int       `json:"schema"`
	Node        string    `json:"node"`
	Time        time.Time `json:"time"`
}

// dumpTable says of what the rows are that follow it. The columns are in the dump, and not taken from the program that
// reads it: an older schema has others.
type dumpTable struct {
	Name    string   `json:"name"`
	Columns []string `json:"columns"`
	Kinds   string   `json:"kinds"` // t, i or b for each column
}

// check refuses what cannot be the name of a table or a column: they become part of statements.
func (t dumpTable) check() error {
	if len(t.Columns) == 0 || len(t.Columns) > maxColumns || len(t.Kinds) != len(t.Columns) || strings.Trim(t.Kinds, "tib") != "" {
		return errors.New("a table with columns that do not fit")
	}
	for i, name := range append([]string{t.Name}, t.Columns...) {
		if len(name) == 0 || len(name) > 40 || name[0] == '_' || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" {
			return fmt.Errorf("a table or column with the name %.50q", name)
		}
		if i > 0 && slices.Contains(t.Columns[:i-1], name) {
			return fmt.Errorf("column %s twice", name)
		}
	}
	return nil
}

// dumpWriter writes a dump. The first error stays. So its callers write on and look once, at the end. row is used again
// for each row: an audit of ten million records would leave as many slices to the collector.
type dumpWriter struct {
	w    *bufio.Writer
	sum  hash.Hash
	rows int64
	row  []byte
	err  error
}

func newDumpWriter(w io.Writer, h dumpHeader) *dumpWriter {
	d := &dumpWriter{sum: sha256.New()}
	d.w = bufio.NewWriterSize(io.MultiWriter(w, d.sum), 64<<10)
	_, d.err = d.w.WriteString(dumpMagic)
	d.json(frameHeader, h)
	return d
}

func (d *dumpWriter) table(t dumpTable) { d.json(frameTable, t) }

func (d *dumpWriter) json(kind byte, v any) {
	b, err := json.Marshal(v)
	if err != nil && d.err == nil {
		d.err = err
	}
	d.frame(kind, b)
}

// add writes a row: strings, int64 and bytes.
func (d *dumpWriter) add(values []any) {
	b := d.row[:0]
	for _, v := range values {
		switch v := v.(type) {
		case string:
			b = appendText(b, v)
		case int64:
			b = binary.BigEndian.AppendUint64(b, uint64(v))
		case []byte:
			b = appendText(b, string(v))
		}
	}
	d.row = b
	d.rows++
	d.frame(frameRow, b)
}

// frame refuses what its reader would refuse: a backup that cannot be restored must fail while it is made.
func (d *dumpWriter) frame(kind byte, payload []byte) {
	if d.err == nil && len(payload) > maxDumpFrame {
		d.err = fmt.Errorf("a frame of %d bytes: at most %d", len(payload), maxDumpFrame)
	}
	if d.err != nil {
		return
	}
	d.w.Write(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload))))
	_, d.err = d.w.Write(payload)
}

// end completes the dump.
func (d *dumpWriter) end() error {
	if d.err != nil {
		return d.err
	}
	d.w.Write(binary.BigEndian.AppendUint32([]byte{frameEnd}, endBytes))
	d.w.Write(binary.BigEndian.AppendUint64(nil, uint64(d.rows)))
	// The sum is taken below the buffer: it is complete only after this, and covers all that stands before it.
	if err := d.w.Flush(); err != nil {
		return err
	}
	d.w.Write(d.sum.Sum(nil))
	return d.w.Flush()
}

// dumpReader reads a dump, in bounded memory. What it gave counts only after io.EOF. Restore writes it in one
// transaction for that reason: a dump whose end is missing leaves nothing behind.
type dumpReader struct {
	r      *bufio.Reader
	sum    hash.Hash
	rows   int64
	header dumpHeader
	table  *dumpTable // of the rows that come
	seen   []string   // names of tables
}

var errNoDump = errors.New("this is no dump of a store")

// newDumpReader reads the header, so that a file that is something else is known before anything is written.
func newDumpReader(r io.Reader) (*dumpReader, error) {
	d := &dumpReader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	magic := make([]byte, len(dumpMagic))
	if err := d.read(magic); err != nil || string(magic) != dumpMagic {
		return nil, errors.Join(errNoDump, err)
	}
	kind, payload, err := d.frame()
	if err != nil {
		return nil, err
	}
	if kind != frameHeader {
		return nil, errNoDump
	}
	if err := decodeStrict(payload, &d.header); err != nil {
		return nil, fmt.Errorf("read dump: header: %w", err)
	}
	return d, nil
}

// decodeStrict refuses members that it does not know: they come from a newer program, and would be lost without a word.
func decodeStrict(b []byte, v any) error {
	in := json.NewDecoder(bytes.NewReader(b))
	in.DisallowUnknownFields()
	err := in.Decode(v)
	if errors.Is(err, io.EOF) {
		return errors.New("nothing is in it") // an io.EOF would be taken for the end of the dump
	}
	if err != nil {
		return err
	}
	if in.More() {
		return errors.New("something follows it")
	}
	return nil
}

func (d *dumpReader) read(b []byte) error {
	if _, err := io.ReadFull(d.r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read dump: %w", err)
	}
	d.sum.Write(b)
	return nil
}

// frame bounds a length before it allocates: a file that is damaged, or not ours, must not take the memory of a running
// server.
func (d *dumpReader) frame() (kind byte, payload []byte, err error) {
	head := make([]byte, 5)
	if err := d.read(head); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	// A row has some kilobytes. Four bytes that were damaged may say four gigabytes.
	if n > maxDumpFrame {
		return 0, nil, fmt.Errorf("read dump: a frame of %d bytes: at most %d", n, maxDumpFrame)
	}
	if head[0] == frameEnd {
		return frameEnd, nil, d.readEnd(n)
	}
	payload = make([]byte, n)
	return head[0], payload, d.read(payload)
}

// readEnd compares the end with what was read. The sum itself is read past d.read, which would add it to what it is
// compared with.
func (d *dumpReader) readEnd(n uint32) error {
	count := make([]byte, 8)
	if n != endBytes {
		return errors.New("read dump: its end does not fit")
	}
	if err := d.read(count); err != nil {
		return err
	}
	want, got := d.sum.Sum(nil), make([]byte, sha256.Size)
	if err := d.read(got); err != nil {
		return err
	}
	if !bytes.Equal(want, got) || binary.BigEndian.Uint64(count) != uint64(d.rows) {
		return errors.New("read dump: it is damaged: its checksum does not fit")
	}
	if _, err := d.r.ReadByte(); err == nil {
		return errors.New("read dump: something follows its end")
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read dump: %w", err)
	}
	return nil
}

// next returns the next row, of d.table. io.EOF: it was the last, and the whole dump is as it was written.
func (d *dumpReader) next() ([]any, error) {
	for {
		kind, payload, err := d.frame()
		if err != nil {
			return nil, err
		}
		switch {
		case kind == frameTable:
			d.table = new(dumpTable)
			if err = decodeStrict(payload, d.table); err == nil {
				err = d.table.check()
			}
			// This program writes each table once. Twice is another program, or somebody who tries what happens.
			if err == nil && slices.Contains(d.seen, d.table.Name) {
				err = fmt.Errorf("table %s twice", d.table.Name)
			}
			if err != nil {
				return nil, fmt.Errorf("read dump: %w", err)
			}
			d.seen = append(d.seen, d.table.Name)
		case kind == frameRow && d.table != nil:
			d.rows++
			return d.table.parse(payload)
		case kind == frameEnd:
			return nil, io.EOF
		default:
			return nil, fmt.Errorf("read dump: a frame of kind %q in this place", kind)
		}
	}
}

// parse reads the values of a row. Every length is checked against what is left: a dump comes from a place that nobody
// guards.
func (t *dumpTable) parse(b []byte) (values []any, err error) {
	damage := fmt.Errorf("read dump: a row of table %s that does not fit", t.Name)
	take := func(n uint64) []byte {
		if uint64(len(b)) < n {
			err = damage
			// Zeros, so that a number is still read of it: err ends the row anyway.
			return make([]byte, min(n, 8))
		}
		taken := b[:n]
		b = b[n:]
		return taken
	}
	for _, kind := range t.Kinds {
		switch kind {
		case 'i':
			values = append(values, int64(binary.BigEndian.Uint64(take(8))))
		case 'b':
			values = append(values, bytes.Clone(take(uint64(binary.BigEndian.Uint32(take(4))))))
		case 't':
			text := string(take(uint64(binary.BigEndian.Uint32(take(4)))))
			if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
				err = damage
			}
			values = append(values, text)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(b) > 0 {
		return nil, damage
	}
	return values, nil
}
