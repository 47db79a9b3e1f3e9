package access

import (
	"context"
	"errors"
)

// Errors of a Store that callers branch on.
var (
	ErrNotFound = errors.New("no such record")
	ErrConflict = errors.New("record was changed meanwhile") // or exists already, for Create
	ErrInUse    = errors.New("in use by another process")    // by OpenJetStream, and by Run for the own name
	ErrAway     = errors.New("is away")                      // the NATS server, or the lease on it: it may come back
)

// The buckets of access §1.
const (
	bucketDomains      = "domains"
	bucketUsers        = "users"
	bucketDevices      = "devices"
	bucketNames        = "names"
	bucketCodes        = "codes"
	bucketRelays       = "relays"
	bucketRevoked      = "revoked"
	bucketSessions     = "sessions"
	bucketMeasurements = "measurements"
	bucketDecisions    = "decisions"
	bucketPresence     = "presence" // volatile
	bucketNodes        = "nodes"    // volatile; a record is gone leaseTime after its last write
)

// volatile reports whether a bucket is held in memory only: what is in it is of
// use as long as the processes live that wrote it.
func volatile(bucket string) bool { return bucket == bucketPresence || bucket == bucketNodes }

// allBuckets returns the buckets that a Store has, in the order of access §1.
func allBuckets() []string {
	return []string{bucketDomains, bucketUsers, bucketDevices, bucketNames,
		bucketCodes, bucketRelays, bucketRevoked, bucketSessions, bucketMeasurements, bucketDecisions,
		bucketPresence, bucketNodes}
}

// Entry is one record of a bucket. Value is the caller's.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64 // of this key; what Update and Delete compare
}

// Store is where an Access Server keeps its state (access §1): JSON records in
// buckets, with compare-and-set on a revision, and an append-only audit stream.
// What was acknowledged is on disk, in volatile buckets in memory; what is read
// is the newest. A store that cannot be reached answers ErrAway until it can.
// Keys are words of letters, digits and "-", joined by ".". Methods block as the disk does and
// may be called concurrently.
type Store interface {
	// Get returns a record or ErrNotFound.
	Get(ctx context.Context, bucket, key string) (Entry, error)
	// Create writes a record that must not exist; else ErrConflict.
	Create(ctx context.Context, bucket, key string, value []byte) (revision uint64, err error)
	// Update writes a record that must be at revision; else ErrConflict.
	Update(ctx context.Context, bucket, key string, value []byte, revision uint64) (uint64, error)
	// Delete removes a record that must be at revision; else ErrConflict.
	Delete(ctx context.Context, bucket, key string, revision uint64) error
	// List returns the records below prefix (whole words: "plant."), or all of
	// them for "", ordered by key.
	List(ctx context.Context, bucket, prefix string) ([]Entry, error)
	// Append adds an audit record of a node that concerns a domain ("": none).
	Append(ctx context.Context, node, domain string, record []byte) error
	// Records returns the newest audit records, at most limit, newest last. An
	// empty node or domain means any.
	Records(ctx context.Context, node, domain string, limit int) ([][]byte, error)
	// Check tells in one line for people how the store keeps what it is given,
	// or why it does not work.
	Check(ctx context.Context) (string, error)
	// Close ends the store; every call after it fails.
	Close() error
}
