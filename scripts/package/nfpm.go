package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// makePackages makes all packages, as many at a time as there are processors.
func (r *release) makePackages() error {
	packs, err := plan(r.only)
	if err != nil {
		return err
	}
	if len(packs) == 0 {
		return fmt.Errorf("no package matches %s", r.only)
	}
	var tasks sync.WaitGroup
	errs, free := make([]error, len(packs)), make(chan struct{}, runtime.NumCPU())
	for i, p := range packs {
		tasks.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			if err := r.makePackage(p); err != nil {
				errs[i] = fmt.Errorf("make %s: %w", p, err)
			}
		})
	}
	tasks.Wait()
	return errors.Join(errs...)
}

// makePackage gives nfpm a description in JSON, which is YAML as well. So no template has to quote for YAML.
func (r *release) makePackage(p pack) error {
	w := &packing{release: r, pack: p}
	if err := w.collect(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(w.describe(), "", "  ")
	if err != nil {
		return err
	}
	config := w.write("nfpm.json", text)
	if w.err != nil {
		return w.err
	}
	cmd := exec.Command(r.nfpm, "package", "--config", config, "--packager", p.format, "--target", r.out+string(filepath.Separator))
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(r.when.Unix(), 10))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run nfpm (scripts/setup installs it): %w\n%s", err, out)
	}
	return nil
}

type object = map[string]any

// describe is the package in nfpm's words.
func (p *packing) describe() object {
	d := object{
		"name": p.name, "arch": p.arch, "platform": "linux", "version": p.version.base, "prerelease": p.version.pre, "release": "1",
		"section": p.section, "priority": "optional", "maintainer": p.maintainer, "vendor": "Hawser",
		"description": p.summary + "\n" + p.text, "mtime": p.when.Format(time.RFC3339),
		"contents": p.contents, "scripts": p.scripts(), "disable_globbing": true,
	}
	switch {
	case p.openWrt():
		d[p.format] = object{"arch": p.openwrt}
	case p.format == "rpm":
		// rpm writes the name of the machine that built into each package, unless it is told another one.
		d["rpm"] = object{"summary": p.summary, "buildhost": "localhost", "packager": p.maintainer}
	}
	if p.daemon != nil && (p.format == "deb" || p.format == "rpm") {
		d["depends"] = map[string][]string{"deb": {"passwd"}, "rpm": {"/usr/sbin/useradd"}}[p.format]
	}
	if p.format != "deb" { // which has it in the copyright file
		d["license"] = "Apache-2.0"
	}
	return d
}

// scripts are the maintainer scripts, by nfpm's names for them.
func (p *packing) scripts() map[string]string {
	var dir string
	names := map[string]string{}
	switch {
	case p.openWrt():
		dir, names = "openwrt", map[string]string{"postinstall": "postinst", "preremove": "prerm"}
	case p.daemon == nil:
	case p.format == "apk":
		dir, names = "alpine", map[string]string{"preinstall": "preinstall"}
	case p.format == "rpm":
		dir, names = "rpm", map[string]string{"postinstall": "post", "preremove": "preun", "postremove": "postun"}
	default:
		dir, names = "deb", map[string]string{"postinstall": "postinst", "preremove": "prerm", "postremove": "postrm"}
	}
	for key, name := range names {
		names[key] = p.write("scripts/"+name, []byte(p.file(dir+"/"+name)))
	}
	return names
}

// write puts a file where nfpm finds it, and returns its path.
func (p *packing) write(name string, text []byte) string {
	path := filepath.Join(p.stage, p.name, p.dir, p.format, name)
	p.fail(os.MkdirAll(filepath.Dir(path), 0o755))
	p.fail(os.WriteFile(path, text, 0o644))
	p.fail(os.Chtimes(path, p.when, p.when)) // a script's time in an apk is that of its file
	return path
}

// zip is text as `gzip -9n` would pack it.
func zip(text string) string {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		panic(err) // neither the level nor memory refuses
	}
	return b.String()
}

// output is what a program prints.
func output(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("run %s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}
