package access

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"hawser/identity"
	"hawser/internal/durable"
)

// refusedLook is how long one look at the lists serves: whoever comes is told, and thousands come at once.
const refusedLook = 10 * time.Second

// refusedKeys are what this server tells of keys that count no more (access §12). Safe for concurrent use.
type refusedKeys struct {
	mu     sync.Mutex // guards all below; held while the directory is read, so that it is read once
	looked time.Time  // monotonic; zero: never
	raw    []byte     // what the root has signed; nil: nothing that is due
}

// ReadRefusedKeys returns the list with the greatest sequence of those in a directory that are due at now, and nil for none. A
// file is named by the second, since 1970, from which its list is handed out (access §12). A bad file is an error beside
// what the others say.
func ReadRefusedKeys(dir string, now time.Time, roots *identity.Roots) (raw []byte, newest identity.RefusedKeys, bad error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, newest, nil
	}
	for _, f := range files {
		from, notOurs := strconv.ParseInt(f.Name(), 10, 64)
		if notOurs != nil || time.Unix(from, 0).After(now) {
			continue
		}
		b, readErr := durable.ReadPublic(filepath.Join(dir, f.Name()), int64(identity.MaxRefusedBytes))
		var list identity.RefusedKeys
		if readErr == nil {
			list, readErr = identity.VerifyRefusedKeys(b, roots)
		}
		switch {
		case readErr != nil:
			err = errors.Join(err, fmt.Errorf("read refused keys %s: %w", f.Name(), readErr))
		case raw == nil || list.Sequence > newest.Sequence:
			raw, newest = b, list
		}
	}
	return raw, newest, err
}

// refusedNow is the list that everybody is told, or nil. It counts for this server, too. Of a clock that nobody trusts the
// server tells what is due all the same: too late is the worse mistake, and an operator has decided that it comes.
func (s *Server) refusedNow() []byte {
	if s.cfg.RefusedKeys == "" {
		return nil
	}
	k := &s.refused
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.looked.IsZero() && time.Since(k.looked) < refusedLook {
		return k.raw
	}
	k.looked = time.Now()
	raw, list, err := ReadRefusedKeys(s.cfg.RefusedKeys, s.now(), s.cfg.Roots)
	if err != nil && s.badResets.Allow(time.Now()) {
		s.log.Error("refused keys are not told", "err", err)
	}
	if raw != nil {
		k.raw = raw
		if s.cfg.Roots.Refuse(list) {
			s.log.Warn("the root has refused keys", "sequence", list.Sequence, "keys", len(list.Keys))
		}
	}
	return k.raw
}
