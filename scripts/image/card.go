package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The card, in MiB. A boot loader that belongs on the card as well has its place before the first partition, where the
// makers of such boards want it. QEMU wants a card whose size is a power of two.
const (
	bootFrom  = 4
	dataFrom  = 64
	cardEnds  = 128
	sector    = 512
	perMiB    = 1 << 20 / sector
	dataLabel = "hawser-data" // root/gateway looks for it
)

// writeCard makes the image of a card: a FAT partition with what boots (files, all in one folder), and an empty
// journalled one for data. Every number that a tool would draw by chance (serial, UUID, hash seed) is given, and
// nothing is left for later: the same input is the same card. Tools that write into a file need neither root nor a loop
// device.
func writeCard(card string, boot []string, mtime int64) error {
	if err := os.WriteFile(card, partitionTable(), 0o644); err != nil {
		return err
	}
	if err := os.Truncate(card, cardEnds<<20); err != nil {
		return err
	}
	drive := fmt.Sprintf("%s@@%dM", card, bootFrom)
	tool := epoch(mtime).run
	if err := tool("mformat", "-i", drive, "-T", strconv.Itoa((dataFrom-bootFrom)*perMiB), "-h", "64", "-s", "32", "-c", "4",
		"-H", strconv.Itoa(bootFrom*perMiB), "-N", "48415753", "-v", "HAWSER", "::"); err != nil {
		return err
	}
	if err := tool("mmd", "-i", drive, "::extlinux"); err != nil {
		return err
	}
	for _, file := range boot {
		to := "::" + filepath.Base(file)
		if filepath.Base(file) == bootMenu {
			to = "::extlinux/" + bootMenu
		}
		if err := tool("mcopy", "-i", drive, "-m", file, to); err != nil {
			return err
		}
	}
	return tool("mke2fs", "-q", "-t", "ext4", "-L", dataLabel, "-U", "68617773-6572-4461-7461-000000000001",
		"-E", fmt.Sprintf("offset=%d,hash_seed=68617773-6572-4461-7461-000000000002,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0", dataFrom<<20),
		"-O", "metadata_csum", card, fmt.Sprintf("%dM", cardEnds-dataFrom))
}

// partitionTable is the card's first sector: a table of the kind that every boot ROM and boot loader reads. Written by
// hand, since a table of two entries is 32 bytes, and a tool draws the disk's number by chance.
func partitionTable() []byte {
	s := make([]byte, sector)
	binary.LittleEndian.PutUint32(s[440:], 0x48415753) // the disk's number
	for i, p := range []struct {
		active, kind byte
		from, to     uint32
	}{{0x80, 0x0e, bootFrom, dataFrom}, {0, 0x83, dataFrom, cardEnds}} {
		entry := s[446+16*i:]
		entry[0], entry[4] = p.active, p.kind
		copy(entry[1:4], "\xfe\xff\xff") // cylinders, heads: too far to say so
		copy(entry[5:8], "\xfe\xff\xff")
		binary.LittleEndian.PutUint32(entry[8:], p.from*perMiB)
		binary.LittleEndian.PutUint32(entry[12:], (p.to-p.from)*perMiB)
	}
	copy(s[510:], "\x55\xaa")
	return s
}

// epoch is the time that everything in an image has, in Unix seconds.
type epoch int64

func (e epoch) time() time.Time { return time.Unix(int64(e), 0) }

// run runs a tool that reads the time from the environment and uses no time zone. The error holds what it said.
func (e epoch) run(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = toolEnv(e)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// toolEnv keeps the moment, the time zone and the configuration of whoever runs a tool out of what it makes.
func toolEnv(e epoch) []string {
	seconds := strconv.FormatInt(int64(e), 10)
	return append(os.Environ(), "SOURCE_DATE_EPOCH="+seconds, "E2FSPROGS_FAKE_TIME="+seconds, "TZ=UTC", "MTOOLSRC=/dev/null")
}
