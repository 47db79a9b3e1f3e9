package store

import (
	"cmp"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hawser/transport/api"
)

// Record is one audit record (access §7). Its hash is taken over its JSON.
type Record api.Record

func (*Record) table() *table { return schema.audit }
func (r *Record) fields() []any {
	return []any{&r.Node, &r.Seq, &r.Time, &r.Domain, &r.Actor, &r.Action, &r.Object, &r.Result, (*detail)(r), &r.Prev, &r.Hash}
}

// detail is the column with the detail of a record and, behind a line end, its report, of which neither has one. Seals are
// over the columns of a row, so that a column more would make all rows bad that were written before.
type detail Record

// MarshalText joins the two.
func (d *detail) MarshalText() ([]byte, error) {
	if d.Report == "" {
		return []byte(d.Detail), nil
	}
	return []byte(d.Detail + "\n" + d.Report), nil
}

// UnmarshalText parts them.
func (d *detail) UnmarshalText(b []byte) error {
	d.Detail, d.Report, _ = strings.Cut(string(b), "\n")
	return nil
}

// VerifyAudit reports the first record that was changed, removed or added among records, which are in order and hold
// all of each node's between its first and last there. It cannot see what is missing at either end. It is pure and
// needs no store.
func VerifyAudit(records []Record) error {
	last := make(map[string]Record)
	for _, r := range records {
		before, known := last[r.Node]
		if err := follows(r, before, known); err != nil {
			return err
		}
		last[r.Node] = r
	}
	return nil
}

// follows reports whether a record is as it was written, and comes after before, if that is known.
func follows(r, before Record, known bool) error {
	sum, err := api.Record(r).Sum()
	switch {
	case err != nil:
		return err
	case sum != r.Hash && !r.isThinned():
		return fmt.Errorf("verify audit record %d of %s: it was changed", r.Seq, r.Node)
	// Both: a record that was left out shows in the number, one that was put in its place in the hash.
	case known && (r.Seq != before.Seq+1 || r.Prev != before.Hash):
		return fmt.Errorf("verify audit record %d of %s: it does not follow record %d", r.Seq, r.Node, before.Seq)
	case r.Seq == 1 && r.Prev != "":
		return fmt.Errorf("verify audit record %d of %s: something was before the first", r.Seq, r.Node)
	}
	return nil
}

// Append completes a record and adds it to the audit of this node. Strings are cleaned: whatever a peer sent, a record
// holds printable ASCII alone. Numbers have no gap, because a node has one writer and a transaction that fails takes
// its number back.
func (t *Tx) Append(r Record) error {
	if err := t.chain(&r); err != nil {
		return err
	}
	if err := t.Insert(&r); err != nil {
		return err
	}
	t.chained(r)
	return nil
}

// chain completes a record that is to be the next one of this node.
func (t *Tx) chain(r *Record) (err error) {
	h := t.work.head
	r.Seq, r.Node, r.Prev = h.auditSeq+1, t.work.node, h.auditHash
	// Before the hash: what is shown and verified later is the truncated time in UTC.
	r.Time = r.Time.UTC().Truncate(time.Millisecond)
	r.Actor, r.Object, r.Detail = Printable(r.Actor), Printable(r.Object), Printable(r.Detail)
	if strings.ContainsFunc(r.Report, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return errors.New("append audit record: its report is no JWS")
	}
	r.Hash, err = api.Record(*r).Sum()
	return err
}

// chained makes a record that was written the one that the next one follows.
func (t *Tx) chained(r Record) { t.work.head.auditSeq, t.work.head.auditHash = r.Seq, r.Hash }

// AuditFilter selects audit records. Empty members select all. Filters, order and limit are the database's: an audit of
// millions of records is never read into memory for a page.
type AuditFilter struct {
	Node    string
	Domains []string // nil: of every domain
	Object  string   // name URI
	Actor   string   // name URI
	User    string   // name URI: who did it, or to whom it was done
	Since   time.Time
	Before  AuditPlace // records older than this place; the zero place: the newest
	Limit   int        // 1 or more
}

// AuditPlace is where a record stands among those of all nodes, by time. A place and not an offset: records that come
// in between move no page, and an object is on exactly one (access §6).
type AuditPlace struct {
	Time time.Time
	Node string
	Seq  int64
}

// Audit returns the newest records that f selects, at most f.Limit, the newest last. Damaged ones are among them, as
// far as they can be read; VerifyAudit finds them.
func (t *Tx) Audit(f AuditFilter) ([]Record, error) {
	var where []string
	var args []any
	add := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	// The column that selects most is asked as it is, to be found in an index; the others so that no index is for them.
	column := func(name string, values ...any) {
		if len(where) > 0 {
			name += "||''"
		}
		add(name+" IN (?"+strings.Repeat(",?", len(values)-1)+")", values...)
	}
	switch {
	case f.User != "" && f.Object != "":
		f.Actor, f.User = f.User, ""
	case f.User != "":
		did, had := f, f
		did.User, did.Actor = "", f.User
		had.User, had.Object = "", f.User
		return t.auditOf(f.Limit, did, had)
	}
	if f.Object != "" {
		column("object", f.Object)
	}
	if f.Actor != "" {
		column("actor", f.Actor)
	}
	if len(f.Domains) > 1 && len(where) == 0 {
		var each []AuditFilter
		for _, domain := range slices.Compact(slices.Sorted(slices.Values(f.Domains))) {
			one := f
			one.Domains = []string{domain}
			each = append(each, one)
		}
		return t.auditOf(f.Limit, each...)
	}
	if len(f.Domains) > 0 {
		var values []any
		for _, d := range f.Domains {
			values = append(values, d)
		}
		column("domain", values...)
	}
	// By time, for a person who reads records of several nodes; their clocks differ, so a chain is not in this order.
	order := "at DESC, node DESC, seq DESC"
	if f.Node != "" {
		if len(where) == 0 && f.Before == (AuditPlace{}) {
			order = "seq DESC" // a clock that was set back does not change the order of a chain
		}
		column("node", f.Node)
	}
	if !f.Since.IsZero() {
		add("at>=?", micros(f.Since))
	}
	if b := f.Before; !b.Time.IsZero() {
		add("(at,node,seq)<(?,?,?)", micros(b.Time), b.Node, b.Seq)
	}
	tail := ""
	if len(where) > 0 {
		tail = " WHERE " + strings.Join(where, " AND ")
	}
	tail += " ORDER BY " + order + " LIMIT ?"
	list, err := rows(t, Record{}, tail, append(args, f.Limit), func(*Record, error) {})
	slices.Reverse(list)
	return list, err
}

// auditOf takes the newest records that any of several filters selects, each once: an index has in order what one value
// selects alone.
func (t *Tx) auditOf(limit int, filters ...AuditFilter) (all []Record, err error) {
	for _, f := range filters {
		list, err := t.Audit(f)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b Record) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Seq, b.Seq))
	})
	all = slices.CompactFunc(all, func(a, b Record) bool { return a.Node == b.Node && a.Seq == b.Seq })
	return all[max(0, len(all)-limit):], nil
}

// AuditChain returns the records of a node that follow one, in the order of the chain. Damaged ones are among them, as
// far as they can be read.
func (t *Tx) AuditChain(node string, after int64, limit int) ([]Record, error) {
	return rows(t, Record{}, " WHERE node=? AND seq>? ORDER BY seq LIMIT ?", []any{node, after, limit}, func(*Record, error) {})
}

// AuditHeads returns where the chains of all nodes begin and end. Nodes that have left are among them: their chains
// stay to be verified.
func (t *Tx) AuditHeads() (heads []api.AuditHead, err error) {
	gens := make(map[string]int64)
	if err := t.gens(gens); err != nil {
		return nil, err
	}
	for _, node := range slices.Sorted(maps.Keys(gens)) {
		h, err := t.head(node)
		if err != nil {
			return nil, err
		}
		c, err := t.Checkpoint(node)
		if err != nil {
			return nil, err
		}
		heads = append(heads, api.AuditHead{Node: node, Seq: h.auditSeq, Hash: h.auditHash, BeginsSeq: c.Seq, BeginsHash: c.Hash, BeginsProof: c.Proof})
	}
	return heads, nil
}

// Place returns where r stands.
func (r *Record) Place() AuditPlace { return AuditPlace{r.Time, r.Node, r.Seq} }

// Checkpoint is where the audit of a node begins after old records went: the last one of them. Nothing before it can be
// verified any more; what is behind it begins with its hash as prev.
type Checkpoint struct {
	Node  string
	Seq   int64
	Hash  string
	At    time.Time // when they went
	Proof []byte    // the node's own word for it (identity §14); empty: it gave none
}

// Checkpoint returns that of a node; the zero Checkpoint when no record of it ever went.
func (t *Tx) Checkpoint(node string) (c Checkpoint, err error) {
	var at int64
	var proof string
	err = t.one("SELECT node,seq,hash,at,proof FROM checkpoints WHERE node=?", []any{node}, &c.Node, &c.Seq, &c.Hash, &at, &proof)
	if errors.Is(err, sql.ErrNoRows) {
		return Checkpoint{}, nil
	}
	c.At = time.UnixMicro(at).UTC()
	c.Proof, _ = base64.StdEncoding.DecodeString(proof) // one that cannot be read proves nothing
	return c, err
}

const maxTextBytes = 200

// Printable makes text of a client safe for logs, terminals and files: at most maxTextBytes of printable ASCII, with "?"
// for every other byte. Escape sequences could rewrite what an operator sees. Bytes and not runes, so that the bound
// holds for whatever the peer sent.
func Printable(s string) string {
	b := []byte(s[:min(len(s), maxTextBytes)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
