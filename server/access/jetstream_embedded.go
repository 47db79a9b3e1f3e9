package access

import (
	"errors"
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"hawser/internal/durable"
)

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
	s := &jetStream{server: srv, lock: lock, replicas: 1}
	if err := s.start(); err != nil {
		s.Close()
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return s, nil
}

// start starts the server inside this process and opens the store on it.
func (s *jetStream) start() (err error) {
	s.server.Start()
	if !s.server.Running() || !s.server.JetStreamEnabled() {
		return errors.New("JetStream did not start: is the directory writable, and is there space?")
	}
	if !s.server.ReadyForConnections(startupTimeout) {
		return errors.New("server is not ready in time")
	}
	if s.conn, err = nats.Connect("", nats.InProcessServer(s.server), nats.NoReconnect()); err != nil {
		return err
	}
	return s.open()
}

func (s *jetStream) foundEmbedded() (string, error) {
	found := s.server.JetStreamConfig()
	if found == nil || !found.SyncAlways {
		return "", errors.New("embedded JetStream does not sync before it acknowledges")
	}
	return fmt.Sprintf("embedded JetStream in %s, syncs before it acknowledges", found.StoreDir), nil
}
