package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Bits of st_mode, inode(7): what a node of an archive is.
const (
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeLink    = 0o120000
)

// node is a file, directory or symbolic link.
type node struct {
	mode    uint32
	content []byte // of a link: where it leads
}

// tree is a file system by path, without leading slash. In memory and not in a directory: there a user who is not root
// could give nothing to root.
type tree map[string]node

func (t tree) dir(path string, perm uint32)                { t[path] = node{modeDir | perm, nil} }
func (t tree) file(path string, perm uint32, bytes []byte) { t[path] = node{modeRegular | perm, bytes} }
func (t tree) link(path, target string)                    { t[path] = node{modeLink | 0o777, []byte(target)} }

// write writes t as the kernel unpacks it (cpio "newc", initramfs buffer format). Everything belongs to root and has the
// time mtime, in Unix seconds; the order is that of the paths, in which a directory comes before what is in it. The same
// tree is the same bytes.
func (t tree) write(w io.Writer, mtime int64) error {
	paths := make([]string, 0, len(t))
	for path := range t {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for i, path := range paths {
		if err := writeNode(w, path, t[path], i+1, mtime); err != nil {
			return err
		}
	}
	return writeNode(w, "TRAILER!!!", node{}, 0, 0)
}

// writeNode writes a header, the name and the content, both filled up to four bytes.
func writeNode(w io.Writer, path string, n node, inode int, mtime int64) error {
	links := 1
	if n.mode&modeDir != 0 {
		links = 2
	}
	header := "070701"
	for _, field := range []int64{int64(inode), int64(n.mode), 0, 0, int64(links), mtime, int64(len(n.content)), 0, 0, 0, 0, int64(len(path)) + 1, 0} {
		header += fmt.Sprintf("%08X", field)
	}
	name := header + path + "\x00"
	_, err := fmt.Fprint(w, name, filler(len(name)), string(n.content), filler(len(n.content)))
	return err
}

func filler(size int) string { return strings.Repeat("\x00", -size&3) }
