package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// kernel is a kernel package's files, as Debian lays them out.
type kernel struct {
	version string
	image   string            // file
	modules map[string]string // path below lib/modules/VERSION by name, with underscores
	root    string            // of the package
}

// findKernel looks at an unpacked linux-image package. There must be one and no more: which would be meant?
func findKernel(root string) (kernel, error) {
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil {
		return kernel{}, err
	}
	if len(images) != 1 {
		return kernel{}, fmt.Errorf("find kernel in %s: %d of them; get one with: scripts/setup image", root, len(images))
	}
	_, version, _ := strings.Cut(filepath.Base(images[0]), "-")
	k := kernel{version: version, image: images[0], modules: map[string]string{}, root: root}
	dir := k.dir()
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok && err == nil {
			k.modules[underscores(name)], err = filepath.Rel(dir, path)
		}
		return err
	})
	return k, err
}

func (k kernel) dir() string { return filepath.Join(k.root, "lib", "modules", k.version) }

// deviceTree is the file of one.
func (k kernel) deviceTree(name string) string {
	matches, _ := filepath.Glob(filepath.Join(k.root, "usr", "lib", "linux-image-"+k.version, name)) // the pattern is well formed
	return strings.Join(matches, "")
}

// underscores: the kernel takes "-" and "_" in a module's name for the same.
func underscores(name string) string { return strings.ReplaceAll(name, "-", "_") }

// load lists the files, below dir, of the named modules, each after those it needs. A module that is not there is built
// into the kernel, or the mistake is seen at boot.
func (k kernel) load(names []string) (files []string, err error) {
	for _, name := range names {
		file, ok := k.modules[underscores(name)]
		if !ok {
			return nil, fmt.Errorf("kernel %s has no module %s", k.version, name)
		}
		if slices.Contains(files, file) {
			continue
		}
		needs, err := needs(filepath.Join(k.dir(), file))
		if err != nil {
			return nil, err
		}
		before, err := k.load(needs)
		if err != nil {
			return nil, err
		}
		for _, f := range append(before, file) {
			if !slices.Contains(files, f) {
				files = append(files, f)
			}
		}
	}
	return files, nil
}

// needs reads what a module itself says it depends on, so that no depmod(8) is needed.
func needs(file string) ([]string, error) {
	module, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	object, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, fmt.Errorf("read module %s: %w", file, err)
	}
	section := object.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("read module %s: it says nothing of itself", file)
	}
	info, err := section.Data()
	for entry := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(entry, "depends="); ok && list != "" {
			return strings.Split(list, ","), err
		}
	}
	return nil, err
}
