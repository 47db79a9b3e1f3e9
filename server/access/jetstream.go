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

	"hawser/internal/durable"
)

// Bounds of the embedded store.
const (
	maxRecordBytes = 256 << 10           // of one record
	maxStoreBytes  = 16 << 30            // of the whole store
	maxAuditBytes  = 1 << 30             // of the audit stream; the oldest records go first
	keepCodes      = 7 * 24 * time.Hour  // a code lives 72 h, and is answered again for 24 h
	keepSessions   = 30 * 24 * time.Hour // after the last change; measurements and decisions too
	startupTimeout = 30 * time.Second
	storeTimeout   = 10 * time.Second // of one request, when the caller has no deadline
)

// jetStream is a Store in a NATS server that runs inside this process, listens
// nowhere and syncs every write before it acknowledges it.
type jetStream struct {
	server  *server.Server
	conn    *nats.Conn
	lock    io.Closer
	js      jetstream.JetStream
	buckets map[string]jetstream.KeyValue
	audit   jetstream.Stream
}

// OpenJetStream opens the Store in dir, which it makes, private, if it is not
// there. It blocks until what is on disk has been read, 30 s at most. A
// directory that another process has open is refused with ErrInUse, and so is,
// with another error, one that others can read.
func OpenJetStream(dir string) (Store, error) {
	if err := durable.OpenDir(dir); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	srv, err := server.NewServer(&server.Options{
		ServerName: "hawser",
		DontListen: true, // in-process connections only: nothing to attack, nothing to collide
		NoSigs:     true,
		NoLog:      true,
		JetStream:  true,
		StoreDir:   dir,
		// JetStream acknowledges at once and syncs every two minutes unless told
		// otherwise; an acknowledged enrolment must outlive a power cut (access §1).
		SyncAlways:         true,
		JetStreamMaxMemory: 64 << 20,
		JetStreamMaxStore:  maxStoreBytes,
		MaxPayload:         1 << 20,
	})
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	s := &jetStream{server: srv, lock: lock, buckets: make(map[string]jetstream.KeyValue)}
	if err := s.start(); err != nil {
		s.Close()
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return s, nil
}

func (s *jetStream) start() (err error) {
	s.server.Start()
	if !s.server.Running() || !s.server.JetStreamEnabled() {
		return errors.New("JetStream did not start: is the directory writable, and is there space?")
	}
	if !s.server.ReadyForConnections(startupTimeout) {
		return errors.New("server is not ready in time")
	}
	s.conn, err = nats.Connect("", nats.InProcessServer(s.server), nats.NoReconnect())
	if err != nil {
		return err
	}
	s.js, err = jetstream.New(s.conn, jetstream.WithDefaultTimeout(storeTimeout))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startupTimeout)
	defer cancel()
	for _, bucket := range allBuckets() {
		if s.buckets[bucket], err = s.openBucket(ctx, bucket); err != nil {
			return fmt.Errorf("bucket %s: %w", bucket, err)
		}
	}
	s.audit, err = s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: "audit", Subjects: []string{auditSubjects}, Storage: jetstream.FileStorage,
		MaxBytes: maxAuditBytes, Discard: jetstream.DiscardOld, DenyDelete: true, DenyPurge: true,
	})
	return err
}

// openBucket makes the stream of a bucket by hand, as the client library lays
// it out, but without direct reads: those may be answered by a replica that is
// behind, and security decisions read the newest revision (access §1).
func (s *jetStream) openBucket(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	keep := map[string]time.Duration{
		bucketCodes: keepCodes, bucketSessions: keepSessions,
		bucketMeasurements: keepSessions, bucketDecisions: keepSessions,
	}
	_, err := s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:              "KV_" + bucket,
		Subjects:          []string{"$KV." + bucket + ".>"},
		Storage:           jetstream.FileStorage,
		MaxMsgsPerSubject: 1,
		MaxMsgSize:        maxRecordBytes,
		MaxAge:            keep[bucket],
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

func (s *jetStream) Get(ctx context.Context, bucket, key string) (Entry, error) {
	e, err := s.buckets[bucket].Get(ctx, key)
	if err != nil {
		return Entry{}, storeError("get", bucket, key, err)
	}
	return Entry{key, e.Value(), e.Revision()}, nil
}

func (s *jetStream) Create(ctx context.Context, bucket, key string, value []byte) (uint64, error) {
	revision, err := s.buckets[bucket].Create(ctx, key, value)
	return revision, storeError("create", bucket, key, err)
}

func (s *jetStream) Update(ctx context.Context, bucket, key string, value []byte, revision uint64) (uint64, error) {
	revision, err := s.buckets[bucket].Update(ctx, key, value, revision)
	return revision, storeError("update", bucket, key, err)
}

func (s *jetStream) Delete(ctx context.Context, bucket, key string, revision uint64) error {
	return storeError("delete", bucket, key, s.buckets[bucket].Delete(ctx, key, jetstream.LastRevision(revision)))
}

func (s *jetStream) List(ctx context.Context, bucket, prefix string) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	w, err := s.buckets[bucket].Watch(ctx, prefix+">", jetstream.IgnoreDeletes())
	if err != nil {
		return nil, storeError("list", bucket, prefix, err)
	}
	defer w.Stop()
	var list []Entry
	for {
		select {
		case e, open := <-w.Updates():
			switch {
			case !open:
				return nil, storeError("list", bucket, prefix, errClosed)
			case e == nil: // the end of what there was
				slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
				return list, nil
			}
			list = append(list, Entry{e.Key(), e.Value(), e.Revision()})
		case <-ctx.Done():
			return nil, storeError("list", bucket, prefix, ctx.Err())
		}
	}
}

// storeError gives the client library's errors our words.
func storeError(verb, bucket, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted):
		err = ErrNotFound
	case errors.Is(err, jetstream.ErrKeyExists), errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		err = ErrConflict
	}
	return fmt.Errorf("%s %s %q: %w", verb, bucket, key, err)
}

// Check says what was found, not what was asked for.
func (s *jetStream) Check(ctx context.Context) (string, error) {
	info, err := s.audit.Info(ctx)
	if err != nil {
		return "", fmt.Errorf("check store: %w", err)
	}
	found := s.server.JetStreamConfig()
	if found == nil || !found.SyncAlways {
		return "", errors.New("check store: embedded JetStream does not sync before it acknowledges")
	}
	return fmt.Sprintf("embedded JetStream in %s, syncs before it acknowledges, %d audit records",
		found.StoreDir, info.State.Msgs), nil
}

func (s *jetStream) Close() error {
	if s.conn != nil {
		s.conn.Close()
	}
	s.server.Shutdown()
	s.server.WaitForShutdown()
	return s.lock.Close()
}
