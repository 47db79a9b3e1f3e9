// Package durable keeps small files through a power cut: a reader finds the old bytes or the new ones, never neither.
//
// # How a file is written
//
// WriteFile makes these system calls, in this order:
//
//  1. open(DIR/.durable-*, O_CREAT|O_EXCL, 0600)   a new file beside the old one, on the same file system
//  2. fchmod(perm)                                 so that a key is never there with a wider mode; and when root writes into
//     fchown(owner of DIR)                         a directory of somebody else's, that one has to be able to read it
//  3. write
//  4. fsync(file)                                  the bytes are on the medium before any name points at them
//  5. close
//  6. rename(DIR/.durable-*, DIR/NAME)             the one atomic step: before it the old file, after it the new one
//  7. fsync(DIR)                                   the rename is on the medium before the caller is told so
//
// A cut before step 6 leaves the old file and a stray temporary file, which the next OpenDir removes. On Windows a
// directory cannot be synced: step 6 is MoveFileEx with MOVEFILE_REPLACE_EXISTING, atomic in the NTFS journal, and
// step 7 is nothing; a cut may then bring back the old file after WriteFile returned, but never a torn one.
// What unix says with the mode 0600, Windows says with an access list: SYSTEM, Administrators and the owner.
//
// # Slots
//
// Flash also fails by itself, so what changes often lives in two checksummed files of which each Save replaces the
// older (see Slots).
//
// A directory belongs to one process at a time. Nothing here locks it; but one that is opened by a second process, such as
// a command beside the service, goes on working for the first.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Errors that callers branch on, with errors.Is.
var (
	// ErrExposed: a directory or file can be read or written by somebody other than its owner.
	ErrExposed = errors.New("open to other users")
	// ErrTooLarge: a file, or a slot's payload, is over its limit.
	ErrTooLarge = errors.New("too large")
	// ErrDamaged: no slot is whole. The caller starts empty, but knows that something was lost.
	ErrDamaged = errors.New("damaged")
)

// tempPattern marks the files that only a cut can leave behind.
const tempPattern = ".durable-*"

// writeTries bounds how often WriteFile begins again when its new file vanished: another process has opened the directory
// and took it for what a cut left behind.
const writeTries = 3

// WriteFile puts data into path with exactly the mode perm, replacing what was there, and returns when it is on the
// medium. After an error the file holds the old bytes, or the new ones if only the last sync failed.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return writer{}.writeFile(path, data, perm)
}

// A writer is WriteFile with a seam: after each step of the package comment it calls after, when set, with that step.
type writer struct {
	after func(step string)
}

func (w writer) writeFile(path string, data []byte, perm fs.FileMode) (err error) {
	for range writeTries {
		if err = w.replace(path, data, perm); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return err
}

func (w writer) replace(path string, data []byte, perm fs.FileMode) error {
	temp, err := w.writeTemp(filepath.Dir(path), data, perm)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(temp)))
	}
	w.done("rename")
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	w.done("sync directory")
	return nil
}

// writeTemp leaves data, synced, in a new file of dir; after an error it leaves nothing.
func (w writer) writeTemp(dir string, data []byte, perm fs.FileMode) (name string, err error) {
	f, err := os.CreateTemp(dir, tempPattern)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	w.done("create")
	if err := w.fill(f, data, perm); err != nil {
		return "", errors.Join(err, f.Close())
	}
	return f.Name(), f.Close()
}

func (w writer) fill(f *os.File, data []byte, perm fs.FileMode) error {
	if err := setMode(f, perm); err != nil {
		return err
	}
	if err := giveToOwner(f); err != nil {
		return err
	}
	w.done("chmod")
	if _, err := f.Write(data); err != nil {
		return err
	}
	w.done("write")
	if err := f.Sync(); err != nil {
		return err
	}
	w.done("sync file")
	return nil
}

func (w writer) done(step string) {
	if w.after != nil {
		w.after(step)
	}
}

// OpenDir makes path ready for private files: it creates what is missing with mode 0700, refuses with ErrExposed a
// directory that group or others may enter, and removes what a cut left behind. On Windows, where every user may look
// into a new directory of %ProgramData%, it instead closes the directory to all but its owner, Administrators and SYSTEM,
// and refuses one whose owner is another user.
func OpenDir(path string) error {
	if err := makeDir(path); err != nil {
		return fmt.Errorf("open directory %s: %w", path, err)
	}
	if err := guardDir(path); err != nil {
		return fmt.Errorf("open directory %s: %w", path, err)
	}
	stray, err := filepath.Glob(filepath.Join(escapeGlob(path), tempPattern))
	if err != nil {
		return fmt.Errorf("open directory %s: %w", path, err)
	}
	for _, name := range stray {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) { // its writer was quicker
			return fmt.Errorf("open directory %s: %w", path, err)
		}
	}
	return nil
}

// makeDir creates path and its missing parents, each synced into its own parent: a synced file in a directory that a
// cut forgot is lost all the same.
func makeDir(path string) error {
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) != path {
		if err := makeDir(filepath.Dir(path)); err != nil {
			return err
		}
		err = os.Mkdir(path, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil // guardDir looks at what it is
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// ReadPrivate returns the bytes of the file path. It refuses with ErrExposed a file that group or others may read or
// write, and with ErrTooLarge one of more than limit bytes; a missing file is fs.ErrNotExist. On Windows it
// refuses what belongs, or whose access list gives anything, to others than OpenDir lets in. It looks at the file that it
// opened, so a file swapped in between gains nothing.
func ReadPrivate(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, openFlags, 0)
	if err != nil {
		return nil, fmt.Errorf("read private file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read private file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read private file %s: not a regular file", path)
	}
	if err := private(f, info); err != nil {
		return nil, fmt.Errorf("read private file %s: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read private file: %w", err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read private file %s: over %d bytes: %w", path, limit, ErrTooLarge)
	}
	return b, nil
}
