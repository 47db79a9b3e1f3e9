package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Two builds, one after the other and elsewhere, are the same byte for byte. They are made by the program as it is used:
// under the race detector compressing takes a minute.
func TestTwoBuildsAreTheSame(t *testing.T) {
	t.Attr("id", "Q8")
	program := filepath.Join(t.TempDir(), "image")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Chdir("../..")
	for _, target := range targets() {
		t.Run(target.name, func(t *testing.T) {
			build := func() []byte {
				dir := t.TempDir()
				if out, err := exec.Command(program, "-target", target.name, "-out", dir).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				card, err := os.ReadFile(filepath.Join(dir, "card.img"))
				if err != nil {
					t.Fatal(err)
				}
				return card
			}
			card := build()
			if len(card) != cardEnds<<20 || !bytes.Equal(card[510:512], []byte{0x55, 0xaa}) || binary.LittleEndian.Uint16(card[dataFrom<<20+1080:]) != 0xef53 {
				t.Error("no card with a partition table and an ext4 partition for data")
			}
			if !bytes.Equal(card, build()) {
				t.Error("the second card.img is another")
			}
		})
	}
}

// What the kernel unpacks is what was put in: the archive is read by a reader of its own, from the format's description.
func TestArchiveHoldsTheTree(t *testing.T) {
	root := tree{}
	root.dir("etc", 0o755)
	root.file("etc/board", 0o644, []byte("WAN=eth0\n"))
	root.link("etc/hosts", "/run/hosts")
	var b bytes.Buffer
	if err := root.write(&b, 7); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for r := bytes.NewReader(b.Bytes()); ; {
		head := make([]byte, 110)
		if _, err := io.ReadFull(r, head); err != nil {
			t.Fatal(err)
		}
		field := func(i int) (n int) {
			for _, c := range head[6+8*i : 14+8*i] {
				n = n<<4 | strings.IndexByte("0123456789ABCDEF", c)
			}
			return n
		}
		read := func(size, before int) string {
			b := make([]byte, size+(-(before+size)&3))
			if _, err := io.ReadFull(r, b); err != nil {
				t.Fatal(err)
			}
			return string(b[:size])
		}
		path := strings.TrimSuffix(read(field(11), 110), "\x00")
		if path == "TRAILER!!!" {
			break
		}
		content := read(field(6), 0)
		want := root[path]
		if uint32(field(1)) != want.mode || content != string(want.content) || field(5) != 7 || field(2) != 0 {
			t.Errorf("%s: mode %o, %q, time %d, owner %d", path, field(1), content, field(5), field(2))
		}
		paths = append(paths, path)
	}
	if !slices.Equal(paths, []string{"etc", "etc/board", "etc/hosts"}) {
		t.Errorf("paths %q", paths)
	}
}

// Each driver comes after those it needs.
func TestDriversAreLoadedInOrder(t *testing.T) {
	for _, target := range targets() {
		dir, err := packageDir(target.arch)
		if err != nil {
			t.Fatal(err)
		}
		k, err := findKernel(dir)
		if err != nil {
			t.Fatal(err)
		}
		files, err := k.load(target.drivers)
		if err != nil {
			t.Fatal(err)
		}
		loaded := map[string]bool{}
		for _, file := range files {
			needed, err := needs(filepath.Join(k.dir(), file))
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range needed {
				if !loaded[underscores(n)] {
					t.Errorf("%s: %s needs %s, which comes later", target.name, file, n)
				}
			}
			loaded[underscores(strings.TrimSuffix(filepath.Base(file), ".ko"))] = true
		}
		if _, err := k.load([]string{"no-such-driver"}); err == nil {
			t.Error("a driver that does not exist is found")
		}
	}
}
