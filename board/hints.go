package board

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"path"
	"strings"
)

// Keys of Hints.
const (
	HintSerial    = "serial"     // the board's, from the device tree
	HintCID       = "cid"        // card identification registers of eMMC and SD cards, joined by commas
	HintMAC       = "mac"        // of the physical network interfaces, joined by commas
	HintMachineID = "machine_id" // a hash of the operating system's; see machineID
)

const (
	maxHintBytes = 128  // of a value
	maxHintFile  = 4096 // bytes; real ones have tens
)

// Hints returns numbers that differ between machines: they show when two devices use one identity, and prove nothing
// (wire §4.1, §4.3). A number that the board does not have is missing. Values are printable ASCII of at most 128
// characters. Cloned SD cards are how two gateways get one identity; the numbers of the board then differ and the
// operator can see it. They are read anew for each hello: a file that was not there at boot may be now.
func (b *Board) Hints() map[string]string {
	hints := make(map[string]string)
	for key, value := range map[string]string{
		// The second path is the first's older name, and a service manager may hide it.
		HintSerial:    b.readAny("sys/firmware/devicetree/base/serial-number", "proc/device-tree/serial-number"),
		HintCID:       strings.Join(b.readEach("sys/block/mmcblk*/device/cid"), ","),
		HintMAC:       strings.Join(b.macs(), ","),
		HintMachineID: machineID(b.readAny("etc/machine-id")),
	} {
		if value = sanitise(value); value != "" {
			hints[key] = value
		}
	}
	return hints
}

// macs leaves out bridges, tunnels and containers, whose addresses are random because they have no device.
func (b *Board) macs() (macs []string) {
	names, err := fs.Glob(b.Root, "sys/class/net/*")
	if err != nil {
		return nil
	}
	for _, name := range names {
		if _, err := fs.Stat(b.Root, path.Join(name, "device")); err != nil {
			continue
		}
		if mac := b.readAny(path.Join(name, "address")); mac != "" {
			macs = append(macs, mac)
		}
	}
	return macs
}

// readEach returns the contents of the files that match pattern, in the order of their names.
func (b *Board) readEach(pattern string) (values []string) {
	names, err := fs.Glob(b.Root, pattern)
	if err != nil {
		return nil
	}
	for _, name := range names {
		if v := b.readAny(name); v != "" {
			values = append(values, v)
		}
	}
	return values
}

// readAny returns the content of the first readable file, without the NUL or newline at its end.
func (b *Board) readAny(names ...string) string {
	for _, name := range names {
		if v, err := readFile(b.Root, name, maxHintFile); err == nil {
			return sanitise(string(v))
		}
	}
	return ""
}

// machineID returns a keyed hash of the machine's id, as machine-id(5) asks: the id itself must not be shown on a
// network. An id that was not made yet is left out. Sixteen bytes of the hash are as long as an id and enough to tell
// machines apart.
func machineID(id string) string {
	if b, err := hex.DecodeString(id); err != nil || len(b) != 16 {
		return ""
	}
	mac := hmac.New(sha256.New, []byte(id))
	mac.Write([]byte("hawser machine-id/1"))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// sanitise keeps printable ASCII, since the values are logged and shown to operators.
func sanitise(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s))
	return s[:min(len(s), maxHintBytes)]
}
