// Command image makes an SD card image that turns a board into a gateway: Debian's kernel, busybox and the agent, with a
// root that nobody can write and a small partition for data. docs/image.md says how to flash and provision it.
//
//	image [-target mcimx6ul-evk] [-out DIR]      DIR/card.img, and what is on it: vmlinuz, initrd.gz, board.dtb
//	image -provision FILE CARD                   puts a provisioning file onto a card's image (no root, no mount)
//	image -overlay DIR INITRD                    adds what is in DIR to a root: a variant, for a test or of one's own
//
// The same source, kernel package and Go make the same bytes: everything has the time SOURCE_DATE_EPOCH, by default that
// of the commit.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// bootMenu is the file that U-Boot looks for (distro boot): what to load, and what to tell the kernel.
const bootMenu = "extlinux.conf"

func main() {
	if err := run(os.Args[1:]); errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	name := flags.String("target", "mcimx6ul-evk", "the `BOARD`: mcimx6ul-evk or arm64-virt")
	out := flags.String("out", "", "`DIR` of the image (default bin/image/BOARD)")
	file := flags.String("provision", "", "put this `FILE` onto the data partition of CARD")
	overlay := flags.String("overlay", "", "add the files of this `DIR` to INITRD, in place of those that have their names")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp // it has been explained
	}
	if (*file != "" || *overlay != "") && flags.NArg() != 1 {
		return errors.New("say what to change: image -provision FILE CARD, image -overlay DIR INITRD")
	}
	switch {
	case *file != "":
		return provision(flags.Arg(0), *file)
	case *overlay != "":
		return addOverlay(flags.Arg(0), *overlay)
	}
	t, ok := findTarget(*name)
	if !ok || flags.NArg() > 0 {
		return fmt.Errorf("no such board: %q", strings.Join(append([]string{*name}, flags.Args()...), " "))
	}
	if *out == "" {
		*out = filepath.Join("bin", "image", t.name)
	}
	mtime, err := sourceTime()
	if err != nil {
		return err
	}
	return t.build(*out, mtime)
}

// sourceTime is SOURCE_DATE_EPOCH, or the time of the commit, or 1980-01-01, the first that FAT knows.
func sourceTime() (int64, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, _ := exec.Command("git", "log", "-1", "--format=%ct").Output() // without a commit there is none
		text = strings.TrimSpace(string(out))
	}
	if text == "" {
		return 315532800, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return max(seconds, 315532800), nil
}

// build leaves in dir what a board boots from, and a card with the same files. QEMU boots from the files, a board from
// the card.
func (t target) build(dir string, mtime int64) error {
	packages, err := packageDir(t.arch)
	if err != nil {
		return err
	}
	k, err := findKernel(packages)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	agent, err := t.buildAgent(dir)
	if err != nil {
		return err
	}
	root, err := t.rootFS(k, filepath.Join(packages, "bin", "busybox"), agent)
	if err != nil {
		return err
	}
	initrd, err := root.pack(mtime)
	if err != nil {
		return err
	}
	files := map[string]string{"vmlinuz": k.image}
	if t.deviceTree != "" {
		files["board.dtb"] = k.deviceTree(t.deviceTree)
	}
	contents := map[string][]byte{"initrd.gz": initrd, bootMenu: t.menu(), "cmdline": []byte(t.commandLine())}
	for to, from := range files {
		if contents[to], err = os.ReadFile(from); err != nil {
			return err
		}
	}
	return t.assemble(dir, contents, mtime)
}

// assemble writes the files and the card.
func (t target) assemble(dir string, contents map[string][]byte, mtime int64) error {
	var boot []string
	for _, name := range []string{"vmlinuz", "initrd.gz", "board.dtb", bootMenu, "cmdline"} {
		content, ok := contents[name]
		if !ok {
			continue
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o644); err != nil {
			return err
		}
		if err := os.Chtimes(file, epoch(mtime).time(), epoch(mtime).time()); err != nil {
			return err
		}
		if name != "cmdline" { // the menu has it
			boot = append(boot, file)
		}
	}
	card := filepath.Join(dir, "card.img")
	if err := writeCard(card, boot, mtime); err != nil {
		return err
	}
	fmt.Println(card)
	return nil
}

// buildAgent builds it as it is released, for the board. scripts/build knows the flags; a second list of them here
// would drift.
func (t target) buildAgent(dir string) (string, error) {
	cmd := exec.Command("scripts/build", filepath.Join(dir, "programs"), "hawser-agent")
	cmd.Env = append(append(os.Environ(), "GOOS=linux"), t.goEnv...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build agent: %w", err)
	}
	return filepath.Join(dir, "programs", "hawser-agent"), nil
}

// commandLine is what the kernel is told. It starts anew five seconds after a panic, for nobody is there to do that.
func (t target) commandLine() string { return "console=" + t.console + " panic=5 quiet" }

func (t target) menu() []byte {
	tree := ""
	if t.deviceTree != "" {
		tree = "\tfdt /board.dtb\n"
	}
	return []byte("default hawser\ntimeout 1\nlabel hawser\n\tkernel /vmlinuz\n\tinitrd /initrd.gz\n" + tree + "\tappend " + t.commandLine() + "\n")
}

// packageDir is where scripts/setup has unpacked the kernel and busybox for an architecture.
func packageDir(arch string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "hawser", "image", arch), nil
}
