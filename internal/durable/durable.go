// Package durable keeps small files through a power cut: a reader finds either the old or the new contents, never a torn
// or missing file.
//
// # How a file is written
//
// WriteFile makes these system calls, in this order:
//
//  1. open(DIR)                                    before the rename and until it is synced: Linux reports an error of
//     writing a directory back to those who had it open, and forgets it with the inode when nobody had
//  2. open(DIR/.NAME.durable, O_CREAT|O_EXCL)      a new file beside the old one, on the same file system
//     flock(LOCK_EX|LOCK_NB)                       it has one writer, see below
//  3. fchmod(perm)                                 so that a key is never there with a wider mode; and when root writes into
//     fchown(owner of DIR)                         a directory of somebody else's, that one has to be able to read it
//  4. write
//  5. fsync(file)                                  the bytes are on the medium before any name points at them
//  6. rename(DIR/.NAME.durable, DIR/NAME)          the one atomic step: before it the old file, after it the new one
//  7. fsync(DIR)                                   the rename is on the medium before the caller is told so
//
// A cut before step 6 leaves the old file and a stray temporary file, one for each NAME at most, which the next write of
// that NAME replaces. On Windows a directory cannot be synced: step 6 is MoveFileEx with MOVEFILE_REPLACE_EXISTING, atomic
// in the NTFS journal, and step 7 is nothing; a cut may then bring back the old file after WriteFile returned, but never
// a torn one. What unix says with the mode 0600, Windows says with an access list: SYSTEM, Administrators and the owner.
//
// # Two writers
//
// A command works in the directory of a running service. Writers of one NAME take turns: the lock on the temporary file
// lasts until it has its final name, and the system releases it when its process dies. What is there and not locked was
// left by a cut, and only the next writer of that NAME removes it, under the same lock. The last of two writers wins.
//
// # Slots
//
// Flash also fails by itself, so what changes often lives in two checksummed files of which each Save replaces the
// older (see Slots).
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Errors that callers branch on, with errors.Is.
var (
	// ErrExposed: a directory or file can be read or written by somebody who must not.
	ErrExposed = errors.New("open to other users")
	// ErrTooLarge: a file, or a slot's payload, is over its limit.
	ErrTooLarge = errors.New("too large")
	// ErrDamaged: no slot is whole. The caller starts empty, but knows that something was lost.
	ErrDamaged = errors.New("damaged")

	errBusy = errors.New("another process is writing it")
)

const (
	// patience is how long WriteFile waits for another writer: several times what a worn SD card takes for a sync. A
	// writer that is stopped, in a debugger or by SIGSTOP, must not stop a service as well.
	patience = 30 * time.Second
	askAgain = 5 * time.Millisecond
)

// WriteFile puts data into path with exactly the mode perm, replacing what was there, and returns when it is on the
// medium. After an error the file holds the old bytes, or the new ones if only the last sync failed. While another
// goroutine or process writes the same path it waits, at most 30 s.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return writer{patience: patience}.writeFile(path, data, perm)
}

// A writer is WriteFile with a seam: after each step of the package comment it calls after, when set, with that step.
type writer struct {
	patience time.Duration
	after    func(step string)
}

func (w writer) writeFile(path string, data []byte, perm fs.FileMode) error {
	err := changeDir(filepath.Dir(path), func() error {
		w.done("open directory")
		return w.replace(path, data, perm)
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	w.done("sync directory")
	return nil
}

// replace gives a new file, synced, the name path. It closes the file, and so unlocks it, when it has that name or is gone.
func (w writer) replace(path string, data []byte, perm fs.FileMode) error {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".durable")
	f, err := w.create(temp)
	if err != nil {
		return err
	}
	w.done("create")
	if err := w.fill(f, data, perm); err != nil {
		return errors.Join(err, os.Remove(temp), f.Close())
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp), f.Close())
	}
	w.done("rename")
	return f.Close()
}

// create returns a new file that this writer alone writes, until it closes it. It asks again instead of waiting in the
// lock, which could not be given up.
func (w writer) create(temp string) (*os.File, error) {
	for began := time.Now(); ; time.Sleep(askAgain) {
		f, err := createLocked(temp)
		if !errors.Is(err, errBusy) || time.Since(began) >= w.patience {
			return f, err
		}
	}
}

// fill sets mode and owner before there is anything to read, and syncs before the rename: else a power cut can leave
// the new name with nothing in it.
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

// changeDir makes a change inside the directory path and returns when that is on the medium.
func changeDir(path string, change func() error) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	if err := change(); err != nil {
		return errors.Join(err, d.Close())
	}
	return errors.Join(syncDir(d), d.Close())
}

// Rename moves a file or directory to another place on the same file system. When it returns, the move is on the medium; when
// the power goes before, it is in one of the two places.
func Rename(from, to string) error {
	return changeDir(filepath.Dir(from), func() error {
		return changeDir(filepath.Dir(to), func() error { return os.Rename(from, to) })
	})
}

// OpenDir makes path ready for private files: it creates what is missing with mode 0700, and refuses with ErrExposed a
// directory that group or others may enter, or that belongs to another person. On Windows, where every user may look into
// a new directory of %ProgramData%, it instead closes the directory to all but its owner, Administrators and SYSTEM, and
// refuses one whose owner is another user. It touches no file in it, so a command may open the directory of a running
// service.
func OpenDir(path string) error {
	if err := makeDir(path); err != nil {
		return fmt.Errorf("open directory %s: %w", path, err)
	}
	if err := guardDir(path); err != nil {
		return fmt.Errorf("open directory %s: %w", path, err)
	}
	return nil
}

// CheckDir returns what OpenDir would refuse, and changes nothing. A directory that is missing is no error: OpenDir makes it.
func CheckDir(path string) error {
	err := lookDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open directory %s: %w", path, err)
	}
	return nil
}

// makeDir creates path and its missing parents, each synced into its own parent: a synced file in a directory that a
// cut forgot is lost all the same.
func makeDir(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err // guardDir looks at what it is
	}
	if parent := filepath.Dir(path); parent != path {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	err := changeDir(filepath.Dir(path), func() error { return os.Mkdir(path, 0o700) })
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was quicker
	}
	return err
}

// ReadPrivate returns the bytes of the file path. It refuses with ErrExposed a file that group or others may read or
// write, or that belongs to another person, and with ErrTooLarge one of more than limit bytes; a missing file is
// fs.ErrNotExist. On Windows it refuses what belongs, or whose access list gives anything, to others than OpenDir lets in.
// It looks at the file that it opened, so a file swapped in between gains nothing.
func ReadPrivate(path string, limit int64) ([]byte, error) {
	b, err := read(path, limit, private)
	if err != nil {
		err = fmt.Errorf("read private file: %w", err)
	}
	return b, err
}

// ReadTrusted is ReadPrivate for a file that others may read but not write: who can write a configuration decides who
// gets in.
func ReadTrusted(path string, limit int64) ([]byte, error) { return read(path, limit, trusted) }

// ReadPublic is ReadPrivate for a file that anybody may read and write: what is in it proves itself, or is good for nothing.
func ReadPublic(path string, limit int64) ([]byte, error) {
	return read(path, limit, func(*os.File, fs.FileInfo) error { return nil })
}

func read(path string, limit int64, judge func(*os.File, fs.FileInfo) error) ([]byte, error) {
	f, err := os.OpenFile(path, openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // reading from a pipe might never return
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if err := judge(f, info); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: over %d bytes: %w", path, limit, ErrTooLarge)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}
