package main

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// scripts are ours; each says why it exists.
//
//go:embed root
var scripts embed.FS

// applets are the commands of busybox that the scripts use, and those that help who looks at the board in a test or on a
// bench. There is no login: nobody is let in.
const applets = `[ awk basename cat chmod cp cut date dd df dmesg echo env expr false findfs free grep halt head hostname id insmod ip kill
	killall ln logger losetup ls lsmod mkdir mknod mount mv nc od pidof ping poweroff printf ps pwd readlink reboot rm rmdir sed sh
	sha256sum sleep sort stat sync tail tee test timeout top touch tr true udhcpc umount uname uptime usleep wc`

// rootFS is the root file system of a board: it lives in memory, so that nothing that happens to the card or the power
// changes it, and it is made read-only once the drivers are loaded (root/rc).
func (t target) rootFS(k kernel, busybox, agent string) (tree, error) {
	all := tree{}
	for _, dir := range strings.Fields("bin data dev etc lib proc run sbin sys tmp var var/lib var/lib/hawser") {
		all.dir(dir, 0o755)
	}
	for _, applet := range strings.Fields(applets) {
		all.link("bin/"+applet, "busybox")
	}
	all.link("init", "bin/busybox")
	// The root is read-only: what DHCP learns goes into memory, what the owner configures onto the data partition.
	all.link("etc/resolv.conf", "/run/resolv.conf")
	all.link("etc/hawser", "/data/config")
	all.file("etc/hosts", 0o644, []byte("127.0.0.1 localhost\n::1 localhost\n"))
	all.file("etc/board", 0o644, fmt.Appendf(nil, "WAN=%s LAN=%s LAN_ADDRESS=%s WATCHDOG=%s\n", t.wan, t.lan, lanAddress, t.watchdog))
	for to, from := range map[string]string{"bin/busybox": busybox, "bin/hawser-agent": agent} {
		program, err := os.ReadFile(from)
		if err != nil {
			return nil, fmt.Errorf("read program: %w", err)
		}
		all.file(to, 0o755, program)
	}
	if err := all.addScripts(); err != nil {
		return nil, err
	}
	return all, all.addDrivers(k, t.drivers)
}

// addScripts puts each script where it is called.
func (t tree) addScripts() error {
	for name, to := range map[string]string{"inittab": "etc/inittab", "rc": "etc/rc", "wan": "sbin/wan", "lease": "etc/lease", "down": "etc/down",
		"gateway": "sbin/gateway", "provision": "sbin/provision"} {
		text, err := scripts.ReadFile(path.Join("root", name))
		if err != nil {
			return err
		}
		t.file(to, 0o755, text)
	}
	return nil
}

// addDrivers adds the modules and the list of them in the order in which they are loaded. The board loads them by
// insmod in that order, so the image needs no depmod, modprobe or udev.
func (t tree) addDrivers(k kernel, names []string) error {
	files, err := k.load(names)
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, file := range files {
		module, err := os.ReadFile(filepath.Join(k.dir(), file))
		if err != nil {
			return err
		}
		to := path.Join("lib", path.Base(file))
		t.file(to, 0o644, module)
		fmt.Fprintf(&list, "/%s\n", to)
	}
	t.file("etc/drivers", 0o644, []byte(list.String()))
	return nil
}

// pack is t as the kernel takes it (initrd), compressed.
func (t tree) pack(mtime int64) ([]byte, error) {
	var packed bytes.Buffer
	zip, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if err := t.write(zip, mtime); err != nil {
		return nil, err
	}
	err = zip.Close()
	return packed.Bytes(), err
}
