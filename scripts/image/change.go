package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// provision writes a file onto the data partition of a card.
func provision(card, file string) error {
	// debugfs(8) parses its command by itself and has no way to quote.
	if strings.ContainsAny(file, " \t\"") {
		return fmt.Errorf("provision %s: no blanks in its name, please", file)
	}
	if _, err := os.Stat(file); err != nil {
		return err
	}
	partition := fmt.Sprintf("%s?offset=%d", card, dataFrom<<20)
	if err := epoch(0).run("debugfs", "-w", "-R", "write "+file+" provision", partition); err != nil {
		return err
	}
	// What debugfs(8) cannot do it says, and succeeds.
	cmd := exec.Command("debugfs", "-R", "stat provision", partition)
	cmd.Env = toolEnv(0)
	if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), "Type: regular") {
		return errors.Join(fmt.Errorf("provision %s: %s is not on it", card, file), err)
	}
	return nil
}

// addOverlay appends an archive of dir to an initrd: the kernel unpacks one after the other, and a later file replaces an
// earlier one. What can be executed in dir can be executed there.
func addOverlay(initrd, dir string) error {
	added := tree{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || entry.IsDir() {
			added.dir(filepath.ToSlash(name), 0o755)
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		added.file(filepath.ToSlash(name), uint32(info.Mode().Perm()), content)
		return err
	})
	if err != nil {
		return fmt.Errorf("read overlay: %w", err)
	}
	packed, err := added.pack(0)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(initrd, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(packed)
	return errors.Join(err, f.Close())
}
