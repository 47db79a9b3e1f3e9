package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Record is RECORD of access §7: one entry of the audit log. Its hash is that of its JSON without `hash`, so the order
// of the members is part of the format, and none but the hash and the report may be left out. The server and the Manager once had a
// type each, which had begun to differ: one could leave domain out, over which the hash is taken.
type Record struct {
	Seq    int64     `json:"seq"` // within the node's chain, from 1
	Time   time.Time `json:"time"`
	Node   string    `json:"node"`
	Domain string    `json:"domain"` // whose users may read it; empty for the infrastructure's own
	Actor  string    `json:"actor"`  // a name URI, or the address of somebody without one
	Action string    `json:"action"`
	Object string    `json:"object"`
	Result string    `json:"result"` // ok, or a reason
	Detail string    `json:"detail"`
	Prev   string    `json:"prev"` // hash of the node's record before it; empty for the first
	// Report is that of a device (identity §17), a JWS. Left out without one, as it was before there were any.
	Report string `json:"report,omitempty"`
	Hash   string `json:"hash,omitempty"`
}

// Records is a page of the audit log, newest last: GET /audit. The first page has the newest records, the page after it
// those before them.
type Records struct {
	Records []Record `json:"records"`
	Next    string   `json:"next"` // the cursor of older records; empty: that was all
	// Statements are what the owner has stated of the devices of these records, in any order: their names, and the keys by
	// which reports are judged.
	Statements []string `json:"statements,omitempty"`
}

// Sum returns the hash that belongs into the record: SHA-256 over its JSON without `hash`, in hex (access §7).
func (r Record) Sum() (string, error) {
	r.Hash = ""
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("hash audit record: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// AuditHead is where the audit chain of one node begins and ends (access §7).
type AuditHead struct {
	Node        string `json:"node"`
	Seq         int64  `json:"seq"` // of the last record; 0: there is none
	Hash        string `json:"hash"`
	BeginsSeq   int64  `json:"begins_seq"` // of the last record that was removed for its age, or to make room; 0: none was
	BeginsHash  string `json:"begins_hash"`
	BeginsProof []byte `json:"begins_proof"` // the audit head (identity §14) that the node signed when it removed them
	// Proof is the audit head (identity §14) of the last record, which its node has signed; empty: that node was not there.
	Proof []byte `json:"proof"`
}

// AuditHeads is every node's: GET /audit/heads.
type AuditHeads struct {
	Heads []AuditHead `json:"heads"`
}

// AuditLink is one record of a node's chain. Of a record that is not the caller's to read there is only what links it to
// its neighbours.
type AuditLink struct {
	Seq    int64   `json:"seq"`
	Prev   string  `json:"prev"`
	Hash   string  `json:"hash"`
	Record *Record `json:"record"` // null: another domain's
}

// AuditChain is a piece of the chain of one node, in order: GET /audit/chain?node=NODE&after=SEQ (access §7).
type AuditChain struct {
	Links []AuditLink `json:"links"`
}

// Verify reports the first link that was changed, left out or added, after a record that is known by its seq and hash.
// It returns the place of the last one. Links of other domains have no content to check; that their hashes follow each
// other is what can be said of them.
func (c AuditChain) Verify(node string, seq int64, hash string) (lastSeq int64, lastHash string, err error) {
	for _, l := range c.Links {
		if l.Seq != seq+1 || l.Prev != hash {
			return seq, hash, fmt.Errorf("audit record %d of %s does not follow record %d", l.Seq, node, seq)
		}
		if r := l.Record; r != nil {
			sum, err := r.Sum()
			if err != nil || sum != l.Hash || r.Hash != l.Hash || r.Seq != l.Seq || r.Prev != l.Prev || r.Node != node {
				return seq, hash, fmt.Errorf("audit record %d of %s was changed", l.Seq, node)
			}
		}
		seq, hash = l.Seq, l.Hash
	}
	return seq, hash, nil
}
