package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// Record is one audit record (access §7).
type Record struct {
	Seq    uint64    `json:"seq"` // within the node's chain, from 1
	Time   time.Time `json:"time"`
	Node   string    `json:"node"`
	Domain string    `json:"domain"` // whose users may read it; empty for the infrastructure's own
	Actor  string    `json:"actor"`  // a name URI, or the address of somebody without one
	Action string    `json:"action"`
	Object string    `json:"object"`
	Result string    `json:"result"` // ok, or a reason
	Detail string    `json:"detail"`
	Prev   string    `json:"prev"` // hash of the node's record before it; empty for the first
	Hash   string    `json:"hash,omitempty"`
}

// The actions of access §7.
const (
	actionInit           = "init"
	actionLogin          = "login"
	actionUserRenew      = "user-renew"
	actionDeviceAdd      = "device-add"
	actionDeviceRevoke   = "device-revoke"
	actionEnrol          = "enrol"
	actionEnrolRefused   = "enrol-refused"
	actionRenew          = "renew"
	actionOnline         = "online"
	actionOffline        = "offline"
	actionSessionOpen    = "session-open"
	actionSessionMove    = "session-move"
	actionSessionEnd     = "session-end"
	actionSessionRefused = "session-refused"
	actionRelayAdd       = "relay-add"
)

const resultOK = "ok"

// hashOf returns the hash of a record: SHA-256 over its JSON without hash.
func hashOf(r Record) (string, error) {
	r.Hash = ""
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("hash audit record: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// VerifyAudit reports the first record that was changed, removed or added
// among records, which are in order and hold all of each node's between its
// first and last there. It cannot see what is missing at either end.
func VerifyAudit(records []Record) error {
	last := make(map[string]Record)
	for _, r := range records {
		sum, err := hashOf(r)
		if err != nil {
			return err
		}
		before, known := last[r.Node]
		switch {
		case sum != r.Hash:
			return fmt.Errorf("verify audit record %d of %s: it was changed", r.Seq, r.Node)
		case known && (r.Seq != before.Seq+1 || r.Prev != before.Hash):
			return fmt.Errorf("verify audit record %d of %s: it does not follow record %d", r.Seq, r.Node, before.Seq)
		case r.Seq == 1 && r.Prev != "":
			return fmt.Errorf("verify audit record %d of %s: something was before the first", r.Seq, r.Node)
		}
		last[r.Node] = r
	}
	return nil
}

// chain appends one node's audit records. It is safe for concurrent use; the
// zero value with a store and a node works.
type chain struct {
	store Store
	node  string

	mu    sync.Mutex // guards last and known, and orders the appends
	last  Record     // the zero Record before the first
	known bool       // last is what the store has
}

// append completes r and writes it. It blocks until it is on disk. Strings are
// cleaned: whatever a peer sent, a record holds printable ASCII alone.
func (c *chain) append(ctx context.Context, r Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.find(ctx); err != nil {
		return err
	}
	r.Seq, r.Node, r.Prev = c.last.Seq+1, c.node, c.last.Hash
	r.Time = r.Time.UTC().Truncate(time.Millisecond)
	r.Actor, r.Object, r.Detail = printable(r.Actor), printable(r.Object), printable(r.Detail)
	sum, err := hashOf(r)
	if err != nil {
		return err
	}
	r.Hash = sum
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write audit record: %w", err)
	}
	// A write that failed may have happened: look before the next one.
	c.known = false
	if err := c.store.Append(ctx, c.node, r.Domain, b); err != nil {
		return err
	}
	c.last, c.known = r, true
	return nil
}

// find reads the node's last record, so that its chain goes on over restarts.
func (c *chain) find(ctx context.Context) error {
	if c.known {
		return nil
	}
	records, err := readAudit(ctx, c.store, c.node, "", 1)
	if err != nil {
		return err
	}
	c.last, c.known = Record{}, true
	if len(records) > 0 {
		c.last = records[0]
	}
	return nil
}

// readAudit reads the newest records, newest last.
func readAudit(ctx context.Context, store Store, node, domain string, limit int) ([]Record, error) {
	raw, err := store.Records(ctx, node, domain, limit)
	if err != nil {
		return nil, err
	}
	records := make([]Record, len(raw))
	for i, b := range raw {
		if err := json.Unmarshal(b, &records[i]); err != nil {
			return nil, fmt.Errorf("read audit record: %w", err)
		}
	}
	return records, nil
}

// audit writes a record about object, which names its domain if it has one. An
// operation whose record cannot be written is not acknowledged.
func (s *Server) audit(ctx context.Context, action, actor string, object identity.Name, result error, detail string) error {
	return s.chain.append(ctx, Record{
		Time: s.now(), Domain: object.Domain, Actor: actor, Action: action,
		Object: object.String(), Result: resultOf(result), Detail: detail,
	})
}

// resultOf returns ok for nil, else the error's reason.
func resultOf(err error) string {
	if err == nil {
		return resultOK
	}
	return string(transport.ReasonOf(err))
}

const maxTextBytes = 200

// printable makes text safe for logs, terminals and files: printable ASCII,
// bounded, "?" for everything else.
func printable(s string) string {
	b := []byte(s[:min(len(s), maxTextBytes)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
