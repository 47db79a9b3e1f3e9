package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// The records of access §1, one type a bucket. Members may be added; a member
// never changes its meaning.
type (
	// domainRecord is in bucket domains.
	domainRecord struct {
		Created time.Time `json:"created"`
		// Infrastructure marks the domain that came with the infrastructure: its
		// users run it.
		Infrastructure bool `json:"infrastructure,omitempty"`
	}
	// userRecord is in bucket users.
	userRecord struct {
		Keys    []userKey  `json:"keys"`
		Revoked *time.Time `json:"revoked,omitempty"`
	}
	// userKey is one machine on which a user logged in.
	userKey struct {
		SPKI     identity.SPKI `json:"spki"`
		Login    time.Time     `json:"login"`
		NotAfter time.Time     `json:"not_after"` // of the newest certificate
	}
	// memberRecord is in the buckets devices and relays: what enrols by
	// activation code. Domain and UID are a device's alone.
	memberRecord struct {
		Domain   string            `json:"domain,omitempty"`
		UID      identity.UID      `json:"uid"`
		Name     string            `json:"name"`
		Created  time.Time         `json:"created"`
		Code     codeRef           `json:"code"`
		Enrolled *enrolment        `json:"enrolled,omitempty"`
		Hints    map[string]string `json:"hints,omitempty"`
		Revoked  *time.Time        `json:"revoked,omitempty"`
	}
	// codeRef is the activation code that a member was made with.
	codeRef struct {
		Lookup  string    `json:"lookup"`
		Hash    hash      `json:"hash"`
		Expires time.Time `json:"expires"`
	}
	// enrolment is what a member was given.
	enrolment struct {
		SPKI     identity.SPKI `json:"spki"`
		Chain    string        `json:"chain"` // PEM; the newest one
		At       time.Time     `json:"at"`    // of the enrolment; renewals leave it
		NotAfter time.Time     `json:"not_after"`
	}
	// nameRecord is in bucket names: it keeps a device's name unique.
	nameRecord struct {
		UID     identity.UID `json:"uid"`
		Created time.Time    `json:"created"`
	}
	// codeRecord is in bucket codes: what a code is for.
	codeRecord struct {
		Kind    identity.Kind `json:"kind"`
		Domain  string        `json:"domain,omitempty"`
		Key     string        `json:"key"` // of the record in its kind's bucket
		Hash    hash          `json:"hash"`
		Expires time.Time     `json:"expires"`
		Used    *codeUse      `json:"used,omitempty"` // login codes alone
	}
	// codeUse is who logged in with a code.
	codeUse struct {
		SPKI identity.SPKI `json:"spki"`
		At   time.Time     `json:"at"`
	}
	// revokedRecord is in bucket revoked.
	revokedRecord struct {
		Name string    `json:"name"` // URI
		When time.Time `json:"when"`
	}
	// sessionRecord is in bucket sessions.
	sessionRecord struct {
		Session  string           `json:"session"`
		Epoch    int              `json:"epoch"`
		Domain   string           `json:"domain"`
		Device   identity.UID     `json:"device"`
		User     string           `json:"user"`
		Relay    string           `json:"relay"`
		Lost     string           `json:"lost,omitempty"` // the relay that its last move left
		Instance string           `json:"instance"`       // the Runtime's process that holds it
		Created  time.Time        `json:"created"`
		Ended    *time.Time       `json:"ended,omitempty"`
		Reason   transport.Reason `json:"reason,omitempty"`
	}
	// measuredRecord is in bucket measurements: what one end knows of the relays.
	measuredRecord struct {
		At     time.Time     `json:"at"` // of the newest
		Relays []measurement `json:"relays"`
	}
)

// hash is a SHA-256, in hex where it is written.
type hash [sha256.Size]byte

// MarshalText returns hex.
func (h hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads hex.
func (h *hash) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(h) {
		return errors.New("parse hash: wrong length")
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// load reads a record. A missing one is ErrNotFound.
func load[T any](ctx context.Context, store Store, bucket, key string) (record T, revision uint64, err error) {
	e, err := store.Get(ctx, bucket, key)
	if err != nil {
		return record, 0, err
	}
	return record, e.Revision, decode(e, bucket, &record)
}

func decode(e Entry, bucket string, record any) error {
	if err := json.Unmarshal(e.Value, record); err != nil {
		return fmt.Errorf("read %s %q: %w", bucket, e.Key, err)
	}
	return nil
}

// save writes a record that is at revision, or with 0 one that must not exist.
// ErrConflict: somebody else was first.
func save(ctx context.Context, store Store, bucket, key string, record any, revision uint64) error {
	value, err := encodeRecord(bucket, key, record)
	if err != nil {
		return err
	}
	if revision == 0 {
		_, err = store.Create(ctx, bucket, key, value)
	} else {
		_, err = store.Update(ctx, bucket, key, value, revision)
	}
	return err
}

func encodeRecord(bucket, key string, record any) ([]byte, error) {
	value, err := json.Marshal(record)
	if err != nil {
		return nil, fmt.Errorf("write %s %q: %w", bucket, key, err)
	}
	return value, nil
}

// update applies change to a record until nobody else changes it meanwhile. If
// change reports false nothing is written and the record is returned as it is.
// change is called once for every try.
func update[T any](ctx context.Context, store Store, bucket, key string, change func(*T) (write bool, err error)) (T, error) {
	return replace(ctx, store, bucket, key, false, change)
}

// upsert is update for a record that may be missing: change gets a zero one then.
func upsert[T any](ctx context.Context, store Store, bucket, key string, change func(*T) (write bool, err error)) (T, error) {
	return replace(ctx, store, bucket, key, true, change)
}

func replace[T any](ctx context.Context, store Store, bucket, key string, create bool, change func(*T) (write bool, err error)) (record T, err error) {
	const tries = 100 // each lost one is another's success
	for range tries {
		record, revision, err := load[T](ctx, store, bucket, key)
		if err != nil && !(create && errors.Is(err, ErrNotFound)) {
			return record, err
		}
		write, err := change(&record)
		if err != nil || !write {
			return record, err
		}
		if err = save(ctx, store, bucket, key, record, revision); !errors.Is(err, ErrConflict) {
			return record, err
		}
	}
	return record, fmt.Errorf("update %s %q: %w", bucket, key, ErrConflict)
}

// list reads the records below prefix.
func list[T any](ctx context.Context, store Store, bucket, prefix string) ([]T, error) {
	entries, err := store.List(ctx, bucket, prefix)
	if err != nil {
		return nil, err
	}
	records := make([]T, len(entries))
	for i, e := range entries {
		if err := decode(e, bucket, &records[i]); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// name returns the identity that the certificate of a member carries.
func (m *memberRecord) name() identity.Name {
	if m.UID.IsZero() {
		return identity.RelayName(m.Name)
	}
	return identity.DeviceName(m.Domain, m.UID)
}

// memberAt returns where the record of a device or relay is.
func memberAt(n identity.Name) (bucket, key string) {
	if n.Kind == identity.KindRelay {
		return bucketRelays, n.ID
	}
	return bucketDevices, n.ID
}

// device returns the identity of the Runtime that a session is with.
func (r *sessionRecord) device() identity.Name { return identity.DeviceName(r.Domain, r.Device) }

// userKeyOf and nameKeyOf return the keys of access §1. Labels have no ".", and
// a device's name may have what a key cannot.
func userKeyOf(domain, user string) string { return domain + "." + user }

func nameKeyOf(domain, device string) string {
	sum := sha256.Sum256([]byte(device))
	return domain + "." + hex.EncodeToString(sum[:16])
}

// newID returns 128 random bits in hex.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// isID reports whether s can be one of newID; nothing else becomes a key.
func isID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 16
}
