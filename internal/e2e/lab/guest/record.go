//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// Requests of the device mapper, whose structures are the same on 32 and 64 bits (the kernel's dm-ioctl.h).
const (
	dmCreate  = 0xc138fd03
	dmRemove  = 0xc138fd04
	dmResume  = 0xc138fd06
	dmLoad    = 0xc138fd09
	dmMessage = 0xc138fd0e
	dmHeader  = 312
	dmSpec    = 40
)

// record makes a disk that is DISK, with everything that is written to it noted in LOG.
func record(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("want NAME DISK LOG, not %q", args)
	}
	name, disk := args[0], args[1]
	text, err := os.ReadFile("/sys/class/block/" + strings.TrimPrefix(disk, "/dev/") + "/size")
	if err != nil {
		return err
	}
	sectors, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return err
	}
	params := disk + " " + args[2]
	spec := binary.NativeEndian.AppendUint64(nil, 0) // start, length, status, next, type
	spec = binary.NativeEndian.AppendUint64(spec, sectors)
	spec = append(spec, make([]byte, 8)...)
	spec = append(spec, fixed("log-writes", 16)...)
	spec = append(spec, fixed(params, (len(params)+8)&^7)...)
	for _, step := range []struct {
		request uintptr
		targets uint32
		data    []byte
	}{{dmCreate, 0, nil}, {dmLoad, 1, spec}, {dmResume, 0, nil}} {
		if err := deviceMapper(step.request, name, step.targets, step.data); err != nil {
			return err
		}
	}
	return nil
}

// mark puts a note of ours between those of the writes.
func mark(args []string) error {
	message := append(make([]byte, 8), "mark "+strings.Join(args[1:], "-")+"\x00"...) // of the target at sector 0
	return deviceMapper(dmMessage, args[0], 0, message)
}

// unrecord takes the disk away. What was written is in DISK, and the notes are complete.
func unrecord(args []string) error { return deviceMapper(dmRemove, args[0], 0, nil) }

func fixed(text string, size int) []byte {
	return append([]byte(text), make([]byte, size-len(text))...)
}

// deviceMapper makes one request about the device of that name.
func deviceMapper(request uintptr, name string, targets uint32, data []byte) error {
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	size := max(dmHeader+len(data), 4096) // room for an answer
	b := make([]byte, size)
	for i, v := range []uint32{4, 0, 0, uint32(size), dmHeader, targets} {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	copy(b[48:176], name)
	copy(b[dmHeader:], data)
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, control.Fd(), request, uintptr(unsafe.Pointer(&b[0])))
	runtime.KeepAlive(b)
	if errno != 0 {
		return fmt.Errorf("device mapper, request %x for %s: %w", request, name, errno)
	}
	return nil
}
