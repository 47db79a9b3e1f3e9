package access

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"hawser/identity"
	"hawser/transport/wire"
)

// ReadFloorReset reads the reset for uid from a directory with one file for each
// device, named by its UID (access §10). What roots do not verify is no reset. The
// error is fs.ErrNotExist when there is none.
func ReadFloorReset(dir string, uid identity.UID, roots *identity.Roots) (raw []byte, r identity.FloorReset, err error) {
	path := filepath.Join(dir, uid.String())
	f, err := os.Open(path)
	if err != nil {
		return nil, r, err
	}
	defer f.Close()
	raw, err = io.ReadAll(io.LimitReader(f, int64(identity.FloorResetBytes)+1))
	if err == nil {
		r, err = identity.VerifyFloorReset(raw, roots, uid)
	}
	if err != nil {
		return nil, r, fmt.Errorf("read floor reset %s: %w", path, err)
	}
	return raw, r, nil
}

// sendFloorReset sends what lies ready for the device that a time-request names
// (wire §3.3). Nobody has verified that UID: a reset is no secret.
func (s *Server) sendFloorReset(w io.Writer, request wire.TimeRequest) error {
	uid := request.UID()
	if s.cfg.FloorResets == "" || uid.IsZero() {
		return nil
	}
	raw, _, err := ReadFloorReset(s.cfg.FloorResets, uid, s.cfg.Roots)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		if s.badReset.due(time.Now()) {
			s.log.Error("floor reset is not sent", "uid", uid, "err", err)
		}
		return nil
	}
	return wire.Write(w, wire.TypeFloorReset, raw)
}
