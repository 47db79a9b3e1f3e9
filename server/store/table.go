package store

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A Row is a record of one table. The pointers to its fields are its columns; the first ones are the key. Only this
// package has rows. Every table is read and written by the same few functions in this way, so that none can be written
// without a seal.
type Row interface {
	table() *table
	fields() []any
}

// table describes one table of the schema.
type table struct {
	name    string
	columns []string
	keys    int        // the first of columns
	noSums  bool       // what is in it is of use for a while, and whoever wrote it writes it again
	row     func() Row // an empty one
	sql     statements
}

// statements of a table, made once.
type statements struct {
	selectAll, get, getSeal, insert, update, remove string
}

// newTable makes a table with the columns of access §1. Every row also has its seal. Update names every column: a row
// is written whole or not at all, so that its seal is over what is there.
func newTable(name string, keys int, row func() Row, columns ...string) *table {
	t := &table{name: name, columns: columns, keys: keys, row: row}
	all := append(slices.Clone(columns), "seal")
	where := " WHERE " + strings.Join(columns[:keys], "=? AND ") + "=?"
	t.sql = statements{
		selectAll: "SELECT " + strings.Join(all, ",") + " FROM " + name,
		getSeal:   "SELECT seal FROM " + name + where,
		insert:    "INSERT INTO " + name + " (" + strings.Join(all, ",") + ") VALUES (" + strings.TrimSuffix(strings.Repeat("?,", len(all)), ",") + ")",
		update:    "UPDATE " + name + " SET " + strings.Join(all[keys:], "=?,") + "=?" + where,
		remove:    "DELETE FROM " + name + where,
	}
	t.sql.get = t.sql.selectAll + where
	return t
}

// seal is the checksum of a row; the zero seal is that of no row.
type seal [sha256.Size]byte

// sealVersion is the version of the canonical form that seals are taken over. The prefix keeps seals of another meaning
// apart: a hash of the same bytes, made elsewhere for something else, is none of these.
const sealVersion = "hawser row v1"

// sealOf returns the seal of a row from its values as the database has them: strings and int64. Lengths and kinds go in
// before each value. Without them "ab","c" and "a","bc" would have one seal.
func sealOf(table string, values []any) seal {
	h := sha256.New()
	b := appendText(nil, sealVersion)
	b = appendText(b, table)
	for _, v := range values {
		switch v := v.(type) {
		case string:
			b = appendText(append(b, 't'), v)
		case int64:
			b = binary.BigEndian.AppendUint64(append(b, 'i'), uint64(v))
		}
	}
	h.Write(b)
	return seal(h.Sum(nil))
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// auditBucket is how many records of a node's audit share a sum. They are taken in order, so that a record that is
// written touches one sum that no other node writes, and old records go with their sums.
const auditBucket = 4096

// sumKeyOf returns the sum that a key belongs to: one of 256 of its table, by the first byte of a hash. It is a hash
// because keys are not spread evenly: UIDs are, names are not.
func (t *table) sumKeyOf(key []any) sumKey {
	if t.name == "audit" {
		return sumKey{auditSums(key[0].(string)), key[1].(int64) / auditBucket}
	}
	s := sealOf(t.name, key)
	return sumKey{t.name, int64(s[0])}
}

func auditSums(node string) string { return "audit." + node }

// encodeField gives a field the form that the database has: a string or an int64. Both engines have no more than these
// two kinds and bytes in common: SQLite has no time and no boolean, and stores as it likes what is given as another
// kind.
func encodeField(field any) (any, error) {
	switch f := field.(type) {
	case *string:
		return *f, nil
	case *int:
		return int64(*f), nil
	case *int64:
		return *f, nil
	case *bool:
		if *f {
			return int64(1), nil
		}
		return int64(0), nil
	case *time.Time:
		if f.IsZero() {
			return int64(0), nil
		}
		return f.UnixMicro(), nil
	case *json.RawMessage:
		if len(*f) > 0 && !json.Valid(*f) {
			return nil, errors.New("it is no JSON")
		}
		return string(*f), nil
	case encoding.TextMarshaler:
		b, err := f.MarshalText()
		return string(b), err
	default:
		b, err := json.Marshal(f)
		return string(b), err
	}
}

// decodeField is the inverse of encodeField.
func decodeField(field, value any) error {
	switch f := field.(type) {
	case *string:
		*f = value.(string)
	case *int:
		*f = int(value.(int64))
	case *int64:
		*f = value.(int64)
	case *bool:
		*f = value.(int64) != 0
	case *time.Time:
		*f = time.Time{}
		if us := value.(int64); us != 0 {
			*f = time.UnixMicro(us).UTC()
		}
	case *json.RawMessage:
		if *f = nil; value != "" {
			*f = json.RawMessage(value.(string))
		}
	case encoding.TextUnmarshaler:
		return f.UnmarshalText([]byte(value.(string)))
	default:
		return json.Unmarshal([]byte(value.(string)), f)
	}
	return nil
}

// isNumber reports whether the column of a field is an integer in the database.
func isNumber(field any) bool {
	switch field.(type) {
	case *int, *int64, *bool, *time.Time:
		return true
	}
	return false
}

func encodeRow(r Row) ([]any, error) { return encodeFields(r.table(), r.fields()) }

// keyOf leaves alone what is no part of the key: the whole of a row is much more work.
func keyOf(r Row) ([]any, error) {
	t := r.table()
	return encodeFields(t, r.fields()[:t.keys])
}

// encodeFields encodes the first columns of a table, as many as there are fields.
func encodeFields(t *table, fields []any) (values []any, err error) {
	for i, f := range fields {
		v, err := encodeField(f)
		if text, ok := v.(string); ok && err == nil && (!utf8.ValidString(text) || strings.Contains(text, "\x00")) {
			err = fmt.Errorf("%.40q is no text", text) // PostgreSQL takes none such
		}
		if err != nil {
			return nil, fmt.Errorf("write %s: column %s: %w", t.name, t.columns[i], err)
		}
		values = append(values, v)
	}
	return values, nil
}

// A DamageError says that a row, or a table, is not what was written.
type DamageError struct {
	Table string
	Key   string // of the row; empty: the table as a whole
	Text  string
}

// Error names the table and the row.
func (e *DamageError) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("table %s: %s", e.Table, e.Text)
	}
	return fmt.Sprintf("table %s, row %s: %s", e.Table, e.Key, e.Text)
}

// Is makes it an ErrDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

// scanned is a row as the database has it.
type scanned struct {
	values []any // of the columns: string or int64
	seal   []byte
}

// scanRow reads the columns of r, then the seal.
func scanRow(r Row, scan func(...any) error) (s scanned, err error) {
	fields := r.fields()
	dest := make([]any, 0, len(fields)+1)
	for _, f := range fields {
		if isNumber(f) {
			dest = append(dest, new(int64))
		} else {
			dest = append(dest, new(string))
		}
	}
	dest = append(dest, &s.seal)
	if err := scan(dest...); err != nil {
		return s, err
	}
	for _, d := range dest[:len(fields)] {
		switch d := d.(type) {
		case *int64:
			s.values = append(s.values, *d)
		case *string:
			s.values = append(s.values, *d)
		}
	}
	return s, nil
}

// into checks the seal and fills r. A bad row fills r as far as that goes, and is a *DamageError. The seal is judged
// first: of a row that is not what was written nobody knows which column to believe, however well it can be read.
func (s scanned) into(r Row) error {
	t := r.table()
	damage := func(text string) error {
		return &DamageError{Table: t.name, Key: keyText(s.values[:t.keys]), Text: text}
	}
	var bad error
	if sum := sealOf(t.name, s.values); string(s.seal) != string(sum[:]) {
		bad = damage("its seal does not fit")
	}
	if err := s.decode(r); err != nil && bad == nil {
		bad = damage(err.Error())
	}
	return bad
}

// decode fills the fields of r as far as that goes, and returns the first error.
func (s scanned) decode(r Row) (err error) {
	for i, f := range r.fields() {
		if bad := decodeField(f, s.values[i]); bad != nil && err == nil {
			err = fmt.Errorf("column %s: %w", r.table().columns[i], bad)
		}
	}
	return err
}

// keyText is for logs and findings. A key that was damaged may hold anything.
func keyText(key []any) string {
	var parts []string
	for _, k := range key {
		parts = append(parts, Printable(fmt.Sprint(k)))
	}
	return strings.Join(parts, " ")
}
