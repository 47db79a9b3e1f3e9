package store

import (
	"cmp"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
)

// A sum is what the rows of one bucket of a table add up to: how many they are, and their seals as numbers modulo
// 2^256. Rows can join and leave it in any order. Addition is what makes that cheap: to change one row takes its old
// seal and its new one, not the other rows of the bucket. A XOR would be as cheap, but a row that is there twice would
// vanish from it.
type sum struct {
	n     int64
	seals [4]uint64 // big endian words
}

func (s *sum) add(x seal)    { s.n++; s.apply(x, bits.Add64) }
func (s *sum) remove(x seal) { s.n--; s.apply(x, bits.Sub64) }

func (s *sum) apply(x seal, op func(a, b, carry uint64) (uint64, uint64)) {
	var carry uint64
	for i := len(s.seals) - 1; i >= 0; i-- {
		s.seals[i], carry = op(s.seals[i], binary.BigEndian.Uint64(x[8*i:]), carry)
	}
}

// plus adds another sum, which may be what has changed: its n may be negative.
func (s *sum) plus(d sum) {
	s.n += d.n
	var carry uint64
	for i := len(s.seals) - 1; i >= 0; i-- {
		s.seals[i], carry = bits.Add64(s.seals[i], d.seals[i], carry)
	}
}

func (s sum) bytes() []byte {
	var b []byte
	for _, w := range s.seals {
		b = binary.BigEndian.AppendUint64(b, w)
	}
	return b
}

func parseSum(n int64, b []byte) (s sum, err error) {
	if len(b) != 32 {
		return s, errors.New("a sum is not 32 bytes long")
	}
	s.n = n
	for i := range s.seals {
		s.seals[i] = binary.BigEndian.Uint64(b[8*i:])
	}
	return s, nil
}

// sumKey names a sum: a table, or "audit.NODE", and a bucket.
type sumKey struct {
	table  string
	bucket int64
}

func compareSumKeys(a, b sumKey) int {
	return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.bucket, b.bucket))
}

// changeSums brings the sums up to date, in one order for all writers, so that two of them do not wait for each other.
// There are 256 sums a table because nodes meet in them. Measured with PostgreSQL 15: with one sum for all rows,
// SERIALIZABLE did 409 transactions a second where it had done 5330 without sums, and 71 % of them were tried again;
// with 256 sums it did 2892, and 4 % were tried again.
func (t *Tx) changeSums(deltas map[sumKey]sum) error {
	for _, key := range slices.SortedFunc(maps.Keys(deltas), compareSumKeys) {
		now, err := t.readSum(key)
		missing := errors.Is(err, sql.ErrNoRows)
		if err != nil && !missing {
			return err
		}
		now.plus(deltas[key])
		if missing {
			// At the first row of a bucket. Rows that are there while their sum is missing are a finding (compareSums).
			err = t.exec("INSERT INTO sums (tbl,bucket,n,total) VALUES (?,?,?,?)", key.table, key.bucket, now.n, now.bytes())
		} else {
			err = t.exec("UPDATE sums SET n=?,total=? WHERE tbl=? AND bucket=?", now.n, now.bytes(), key.table, key.bucket)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readSum is for one bucket; sql.ErrNoRows: no row of it was ever written, which is not the same as a sum of zero rows.
func (t *Tx) readSum(key sumKey) (sum, error) {
	var n int64
	var b []byte
	if err := t.one("SELECT n,total FROM sums WHERE tbl=? AND bucket=?", []any{key.table, key.bucket}, &n, &b); err != nil {
		return sum{}, err
	}
	return parseSum(n, b)
}

// readSums reads the sums of a table, or of the audit of a node.
func (t *Tx) readSums(table string) (map[int64]sum, error) {
	rows, err := t.query("SELECT bucket,n,total FROM sums WHERE tbl=?", table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	sums := make(map[int64]sum)
	for rows.Next() {
		var bucket, n int64
		var b []byte
		if err := rows.Scan(&bucket, &n, &b); err != nil {
			return nil, err
		}
		if sums[bucket], err = parseSum(n, b); err != nil {
			return nil, &DamageError{Table: "sums", Key: fmt.Sprintf("%s %d", table, bucket), Text: err.Error()}
		}
	}
	return sums, errors.Join(rows.Err(), rows.Close())
}

// compareSums says in which buckets rows and sums differ. A sum that says zero and a bucket without rows agree:
// deleting the last row leaves its sum behind.
func compareSums(want, got map[int64]sum) (buckets []int64) {
	for _, b := range slices.Sorted(maps.Keys(got)) {
		if got[b] != want[b] {
			buckets = append(buckets, b)
		}
	}
	for _, b := range slices.Sorted(maps.Keys(want)) {
		if _, ok := got[b]; !ok && want[b] != (sum{}) {
			buckets = append(buckets, b)
		}
	}
	return buckets
}
