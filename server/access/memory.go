package access

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// NewMemory returns a Store that forgets everything with its process. It exists
// for bubbles alone, where a NATS server does not belong; it does no I/O and
// its calls never block.
func NewMemory() Store {
	return &memory{buckets: make(map[string]map[string]memoryEntry)}
}

type memory struct {
	mu       sync.Mutex // guards all below
	closed   bool
	revision uint64
	buckets  map[string]map[string]memoryEntry
	audit    []auditEntry
}

// memoryEntry is an Entry with the time of its last write.
type memoryEntry struct {
	Entry
	at time.Time
}

type auditEntry struct {
	node, domain string
	record       []byte
}

var errClosed = errors.New("store is closed")

func (m *memory) Get(_ context.Context, bucket, key string) (Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.findLocked(bucket, key)
	switch {
	case m.closed:
		return Entry{}, errClosed
	case !ok:
		return Entry{}, ErrNotFound
	}
	return e.clone(), nil
}

// findLocked returns a record that is not too old for its bucket.
func (m *memory) findLocked(bucket, key string) (Entry, bool) {
	e, ok := m.buckets[bucket][key]
	if keep := keepFor(bucket); ok && keep > 0 && time.Since(e.at) >= keep {
		return Entry{}, false
	}
	return e.Entry, ok
}

func (m *memory) Create(_ context.Context, bucket, key string, value []byte) (uint64, error) {
	return m.swap(bucket, key, value, 0)
}

func (m *memory) Update(_ context.Context, bucket, key string, value []byte, revision uint64) (uint64, error) {
	return m.swap(bucket, key, value, revision)
}

// swap writes a record that is at revision; 0 is that of one that is not there.
func (m *memory) swap(bucket, key string, value []byte, revision uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, _ := m.findLocked(bucket, key)
	switch {
	case m.closed:
		return 0, errClosed
	case old.Revision != revision:
		return 0, ErrConflict
	case m.buckets[bucket] == nil:
		m.buckets[bucket] = make(map[string]memoryEntry)
	}
	m.revision++
	m.buckets[bucket][key] = memoryEntry{Entry{key, bytes.Clone(value), m.revision}, time.Now()}
	return m.revision, nil
}

func (m *memory) Delete(_ context.Context, bucket, key string, revision uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.findLocked(bucket, key)
	switch {
	case m.closed:
		return errClosed
	case !ok || e.Revision != revision:
		return ErrConflict
	}
	delete(m.buckets[bucket], key)
	return nil
}

func (m *memory) List(_ context.Context, bucket, prefix string) ([]Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	var list []Entry
	for _, key := range slices.Sorted(maps.Keys(m.buckets[bucket])) {
		if e, ok := m.findLocked(bucket, key); ok && strings.HasPrefix(key, prefix) {
			list = append(list, e.clone())
		}
	}
	return list, nil
}

func (m *memory) Append(_ context.Context, node, domain string, record []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed
	}
	m.audit = append(m.audit, auditEntry{node, domain, bytes.Clone(record)})
	return nil
}

func (m *memory) Records(_ context.Context, node, domain string, limit int) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	var newest [][]byte
	for _, e := range slices.Backward(m.audit) {
		if len(newest) == limit {
			break
		}
		if (node == "" || node == e.node) && (domain == "" || domain == e.domain) {
			newest = append(newest, bytes.Clone(e.record))
		}
	}
	slices.Reverse(newest)
	return newest, nil
}

func (m *memory) Check(context.Context) (string, error) {
	return "in memory: nothing is kept", nil
}

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func (e Entry) clone() Entry {
	e.Value = bytes.Clone(e.Value)
	return e
}
