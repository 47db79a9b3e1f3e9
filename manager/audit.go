package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/transport"
	"hawser/transport/api"
)

// headsFile keeps how far the audit was verified, so that an end that is cut off later is noticed. It stands on the
// technician's PC, where whoever has the server cannot change it.
const headsFile = "audit.json"

// VerifiedChain is what VerifyAudit found out about the audit of one Access Server. A problem is text, since what to do
// about each is the same: ask the operator.
type VerifiedChain struct {
	Node    string `json:"node"`
	From    int64  `json:"from"`    // the first record that was looked at; the ones before were verified earlier, or are gone
	To      int64  `json:"to"`      // the last record
	Problem string `json:"problem"` // the first thing that is wrong; empty: nothing
}

// verifiedHeads is headsFile: what was verified of one infrastructure, which its root names. After a login at another
// infrastructure the old heads say nothing; they must not call its chains broken.
type verifiedHeads struct {
	Root  string                `json:"root"`
	Nodes map[string]auditPlace `json:"nodes"`
}

// auditPlace is a record that was verified.
type auditPlace struct {
	Seq  int64  `json:"seq"`
	Hash string `json:"hash"`
}

// VerifyAudit reads the audit chains of all Access Servers from where the last call on this machine ended, and reports
// for each whether records were changed, left out, added, or cut off at the end. It remembers the ends that are good.
// The error is of the way; what is wrong with a chain is its Problem. A chain that is not good keeps its old place: the
// next call finds the same, until somebody has looked.
func (a *Account) VerifyAudit(ctx context.Context) ([]VerifiedChain, error) {
	const op = "verify audit"
	defer a.m.progress("")
	known, err := a.home.readHeads(a.rootPin().String())
	if err != nil {
		return nil, fail(transport.Internal, op, err)
	}
	var answer api.AuditHeads
	if err := a.do(ctx, op, http.MethodGet, "/audit/heads", nil, &answer); err != nil {
		return nil, err
	}
	found := []VerifiedChain{}
	seen := make(map[string]bool)
	for _, head := range answer.Heads {
		seen[head.Node] = true
		v, last, err := a.verifyChain(ctx, op, head, known[head.Node], func(api.AuditLink) {})
		if err != nil {
			return nil, err
		}
		if v.Problem == "" {
			known[head.Node] = last
		}
		found = append(found, v)
	}
	// A server that was retired for good looks the same as one whose chain somebody took away: a person has to say
	// which it is.
	for node, place := range known {
		if !seen[node] {
			found = append(found, VerifiedChain{Node: node, To: place.Seq, Problem: "the whole chain is gone"})
		}
	}
	return found, a.home.storeHeads(a.rootPin().String(), known)
}

// verifyChain reads a chain up to its head, and passes on each link that is good. What was there at the last time must still
// be there.
func (a *Account) verifyChain(ctx context.Context, op string, head api.AuditHead, known auditPlace, good func(api.AuditLink)) (v VerifiedChain, last auditPlace, err error) {
	if last = known; head.BeginsSeq > known.Seq { // old records went since, or before the first time
		last = auditPlace{head.BeginsSeq, head.BeginsHash}
	}
	v = VerifiedChain{Node: head.Node, From: last.Seq + 1, To: head.Seq}
	if err := proveBegin(head, a.state.roots); head.BeginsSeq > 0 && err != nil {
		v.Problem = fmt.Sprintf("it begins after record %d, and the server's word for that is missing: %v", head.BeginsSeq, err)
		return v, last, nil
	}
	if head.Seq < head.BeginsSeq { // an old word of the server is no reason to miss what was there since
		v.Problem = fmt.Sprintf("it ends with record %d, and records were removed up to %d", head.Seq, head.BeginsSeq)
		return v, last, nil
	}
	if head.Seq < known.Seq {
		v.Problem = fmt.Sprintf("it ends with record %d, and record %d was there", head.Seq, known.Seq)
		return v, last, nil
	}
	for last.Seq < head.Seq {
		var piece api.AuditChain
		path := "/audit/chain?" + url.Values{
			api.ParamNode: {head.Node}, api.ParamAfter: {strconv.FormatInt(last.Seq, 10)}, api.ParamLimit: {strconv.Itoa(api.MaxLimit)},
		}.Encode()
		if err := a.do(ctx, op, http.MethodGet, path, nil, &piece); err != nil {
			return v, last, err
		}
		if len(piece.Links) == 0 {
			v.Problem = fmt.Sprintf("record %d and those after it are missing", last.Seq+1)
			return v, last, nil
		}
		// The hashes are computed here from the records, as far as this domain may read them.
		for _, l := range piece.Links {
			if last.Seq == head.Seq {
				break // what came since has no head yet
			}
			one := api.AuditChain{Links: []api.AuditLink{l}}
			if last.Seq, last.Hash, err = one.Verify(head.Node, last.Seq, last.Hash); err != nil {
				v.Problem = err.Error()
				return v, last, nil
			}
			good(l)
		}
		a.m.progress(fmt.Sprintf("audit of %s: %d of %d", head.Node, last.Seq, head.Seq))
	}
	if last.Seq == head.Seq && last.Hash != head.Hash {
		v.Problem = fmt.Sprintf("record %d is not the one that was last there", head.Seq)
	}
	v.To = last.Seq
	return v, last, nil
}

// proveBegin tells whether the server itself has removed the records before the first one: whoever can only write to its
// database could remove them, but not sign for it.
func proveBegin(head api.AuditHead, roots *identity.Roots) error {
	return proveHead(head.BeginsProof, head.Node, head.BeginsSeq, head.BeginsHash, roots)
}

// readHeads reads what was verified of an infrastructure; nothing for the first time. A damaged file is an error and
// not an empty one: to begin anew silently is what whoever cut off the audit would want.
func (h home) readHeads(root string) (map[string]auditPlace, error) {
	unlock, err := h.lock()
	if err != nil {
		return nil, err
	}
	defer unlock.Close()
	v, err := credential.Load(h.path(headsFile), func(b []byte) (v verifiedHeads, err error) {
		return v, json.Unmarshal(b, &v)
	})
	if errors.Is(err, fs.ErrNotExist) || err == nil && (v.Root != root || v.Nodes == nil) {
		return make(map[string]auditPlace), nil
	}
	return v.Nodes, err
}

// The whole file is written anew, so that it is either the old one or the new one.
func (h home) storeHeads(root string, known map[string]auditPlace) error {
	unlock, err := h.lock()
	if err != nil {
		return err
	}
	defer unlock.Close()
	b, err := json.Marshal(verifiedHeads{root, known})
	if err != nil {
		return err
	}
	return durable.WriteFile(h.path(headsFile), append(b, '\n'), 0o600)
}

// WriteVerified writes what VerifyAudit found, one line a chain.
func WriteVerified(w io.Writer, chains []VerifiedChain) error {
	for _, c := range chains {
		text := fmt.Sprintf("good, records %d to %d", c.From, c.To)
		switch {
		case c.Problem != "":
			text = "BROKEN: " + c.Problem
		case c.From > c.To:
			text = fmt.Sprintf("good, nothing new since record %d", c.To)
		}
		if _, err := fmt.Fprintf(w, "%-16s  %s\n", clean(c.Node), clean(text)); err != nil {
			return err
		}
	}
	return nil
}
