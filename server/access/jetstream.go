package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bounds of a store in JetStream.
const (
	maxRecordBytes = 256 << 10           // of one record
	maxStoreBytes  = 16 << 30            // of the whole store
	maxAuditBytes  = 1 << 30             // of the audit stream; the oldest records go first
	keepCodes      = 7 * 24 * time.Hour  // a code lives 72 h, and is answered again for 24 h
	keepSessions   = 30 * 24 * time.Hour // after the last change; measurements and decisions too
	startupTimeout = 30 * time.Second
	storeTimeout   = 10 * time.Second // of one request, when the caller has no deadline
)

// jetStream is a Store in a NATS server: one inside this process, or another.
type jetStream struct {
	conn     *nats.Conn
	js       jetstream.JetStream
	buckets  map[string]jetstream.KeyValue
	audit    jetstream.Stream
	replicas int            // of the streams that are made
	server   *server.Server // inside this process; nil: another one
	lock     io.Closer      // of its directory
}

// open makes what is not there, and blocks until it can be used.
func (s *jetStream) open() (err error) {
	s.js, err = jetstream.New(s.conn, jetstream.WithDefaultTimeout(storeTimeout))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startupTimeout)
	defer cancel()
	s.buckets = make(map[string]jetstream.KeyValue)
	for _, bucket := range allBuckets() {
		if s.buckets[bucket], err = s.openBucket(ctx, bucket); err != nil {
			return fmt.Errorf("bucket %s: %w", bucket, err)
		}
	}
	s.audit, err = s.makeStream(ctx, jetstream.StreamConfig{
		Name: auditStream, Subjects: []string{auditSubjects}, Storage: jetstream.FileStorage,
		MaxBytes: maxAuditBytes, Discard: jetstream.DiscardOld, DenyDelete: true, DenyPurge: true,
	})
	return err
}

// makeStream makes a stream, or brings one up to date; how many replicas that
// one has is its operator's affair.
func (s *jetStream) makeStream(ctx context.Context, c jetstream.StreamConfig) (jetstream.Stream, error) {
	c.Replicas = s.replicas
	if old, err := s.js.Stream(ctx, c.Name); err == nil {
		c.Replicas = old.CachedInfo().Config.Replicas
	} else if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, err
	}
	return s.js.CreateOrUpdateStream(ctx, c)
}

// openBucket makes the stream of a bucket by hand, as the client library lays
// it out, but without direct reads: those may be answered by a replica that is
// behind, and security decisions read the newest revision (access §1).
func (s *jetStream) openBucket(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	storage := jetstream.FileStorage
	if volatile(bucket) {
		storage = jetstream.MemoryStorage
	}
	_, err := s.makeStream(ctx, jetstream.StreamConfig{
		Name:              "KV_" + bucket,
		Subjects:          []string{"$KV." + bucket + ".>"},
		Storage:           storage,
		MaxMsgsPerSubject: 1,
		MaxMsgSize:        maxRecordBytes,
		MaxAge:            keepFor(bucket),
		Discard:           jetstream.DiscardNew,
		AllowRollup:       true,
		DenyDelete:        true,
		AllowDirect:       false,
	})
	if err != nil {
		return nil, err
	}
	return s.js.KeyValue(ctx, bucket)
}

// keepFor is how long a record stays after its last write; 0: for ever.
func keepFor(bucket string) time.Duration {
	switch bucket {
	case bucketCodes:
		return keepCodes
	case bucketSessions, bucketMeasurements, bucketDecisions:
		return keepSessions
	case bucketNodes:
		return leaseTime
	}
	return 0
}

// retry does an operation again after its bucket went with the memory of a
// server that was restarted.
func (s *jetStream) retry(ctx context.Context, bucket string, do func() error) error {
	err := do()
	if !volatile(bucket) || !isMissing(err) {
		return err
	}
	if _, err := s.openBucket(ctx, bucket); err != nil {
		return err
	}
	return do()
}

func (s *jetStream) Get(ctx context.Context, bucket, key string) (Entry, error) {
	var e jetstream.KeyValueEntry
	err := s.retry(ctx, bucket, func() (err error) { e, err = s.buckets[bucket].Get(ctx, key); return err })
	if err != nil {
		return Entry{}, s.storeError("get", bucket, key, err)
	}
	return Entry{key, e.Value(), e.Revision()}, nil
}

func (s *jetStream) Create(ctx context.Context, bucket, key string, value []byte) (revision uint64, err error) {
	err = s.retry(ctx, bucket, func() (err error) { revision, err = s.buckets[bucket].Create(ctx, key, value); return err })
	return revision, s.storeError("create", bucket, key, err)
}

func (s *jetStream) Update(ctx context.Context, bucket, key string, value []byte, old uint64) (revision uint64, err error) {
	err = s.retry(ctx, bucket, func() (err error) { revision, err = s.buckets[bucket].Update(ctx, key, value, old); return err })
	return revision, s.storeError("update", bucket, key, err)
}

func (s *jetStream) Delete(ctx context.Context, bucket, key string, revision uint64) error {
	err := s.retry(ctx, bucket, func() error { return s.buckets[bucket].Delete(ctx, key, jetstream.LastRevision(revision)) })
	return s.storeError("delete", bucket, key, err)
}

func (s *jetStream) List(ctx context.Context, bucket, prefix string) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	var w jetstream.KeyWatcher
	err := s.retry(ctx, bucket, func() (err error) {
		w, err = s.buckets[bucket].Watch(ctx, prefix+">", jetstream.IgnoreDeletes())
		return err
	})
	if err != nil {
		return nil, s.storeError("list", bucket, prefix, err)
	}
	defer w.Stop()
	var list []Entry
	for {
		select {
		case e, open := <-w.Updates():
			switch {
			case !open:
				return nil, s.storeError("list", bucket, prefix, errClosed)
			case e == nil: // the end of what there was
				slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
				return list, nil
			}
			list = append(list, Entry{e.Key(), e.Value(), e.Revision()})
		case <-ctx.Done():
			return nil, s.storeError("list", bucket, prefix, ctx.Err())
		}
	}
}

// Check says what was found, not what was asked for.
func (s *jetStream) Check(ctx context.Context) (string, error) {
	info, err := s.audit.Info(ctx)
	if err != nil {
		return "", fmt.Errorf("check store: %w", s.away(err))
	}
	found := s.foundExternal
	if s.server != nil {
		found = s.foundEmbedded
	}
	text, err := found()
	if err != nil {
		return "", fmt.Errorf("check store: %w", err)
	}
	return fmt.Sprintf("%s, %d audit records", text, info.State.Msgs), nil
}

func (s *jetStream) Close() error {
	if s.conn != nil {
		s.conn.Close()
	}
	if s.server == nil {
		return nil
	}
	s.server.Shutdown()
	s.server.WaitForShutdown()
	return s.lock.Close()
}
