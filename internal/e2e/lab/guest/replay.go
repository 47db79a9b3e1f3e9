//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// outcome is what one state of the disk led to, in the order of the log; equal neighbours are counted together.
type outcome struct {
	Mark   string // the last one before it
	States int    // how many states of the disk
	Code   int    // of PROGRAM
	Output string
}

// replayer goes through the states of a disk.
type replayer struct {
	disk, dir string // a block device, and where it is mounted
	program   []string
	// Most writes are of the journal and change no file, and starting PROGRAM for each takes an emulated board long.
	known map[[sha256.Size]byte]outcome // by what the directory holds: PROGRAM sees nothing else
}

// replay puts each state that the disk of LOG had onto DISK, from the file BASE on: after each write, everything before it
// and nothing after it is there, as after a power cut. Each is mounted, which repairs the file system by its journal, and
// PROGRAM looks at it. The outcomes are printed as JSON.
func replay(args []string) error {
	if len(args) < 5 {
		return fmt.Errorf("want DISK BASE LOG DIR PROGRAM…, not %q", args)
	}
	state, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	log, err := os.Open(args[2])
	if err != nil {
		return err
	}
	defer log.Close()
	notes, err := readLog(log)
	if err != nil {
		return err
	}
	r := replayer{disk: args[0], dir: args[3], program: args[4:], known: map[[sha256.Size]byte]outcome{}}
	var all []outcome
	mark := ""
	for i, n := range notes {
		if n.mark != "" {
			mark = n.mark
		}
		if len(n.bytes) == 0 {
			continue
		}
		if n.at+int64(len(n.bytes)) > int64(len(state)) {
			return fmt.Errorf("note %d writes behind the end of the disk", i)
		}
		copy(state[n.at:], n.bytes)
		o, err := r.try(state)
		if err != nil {
			return fmt.Errorf("state %d: %w", i, err)
		}
		o.Mark, o.States = mark, 1
		if k := len(all) - 1; k >= 0 && all[k].Mark == mark && all[k].Code == o.Code && all[k].Output == o.Output {
			all[k].States++
		} else {
			all = append(all, o)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// try mounts one state and has PROGRAM look at it, unless the same files were there before.
func (r replayer) try(state []byte) (o outcome, err error) {
	if err := os.WriteFile(r.disk, state, 0); err != nil {
		return o, err
	}
	if err := syscall.Mount(r.disk, r.dir, "ext4", syscall.MS_NOATIME, ""); err != nil {
		return o, fmt.Errorf("mount: %w", err)
	}
	defer func() { err = errors.Join(err, syscall.Unmount(r.dir, 0)) }()
	sum, err := contents(r.dir)
	if err != nil {
		return o, err
	}
	if o, ok := r.known[sum]; ok {
		return o, nil
	}
	cmd := exec.Command(r.program[0], r.program[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return o, err
	}
	o = outcome{Code: cmd.ProcessState.ExitCode(), Output: strings.TrimSpace(stdout.String() + stderr.String())}
	r.known[sum] = o
	return o, nil
}

// contents is a sum of all names, modes and bytes below dir.
func contents(dir string) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %v %d\n", path, info.Mode(), info.Size())
		if !info.Mode().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		h.Write(b)
		return err
	})
	return [sha256.Size]byte(h.Sum(nil)), err
}
