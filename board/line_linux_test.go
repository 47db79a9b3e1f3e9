package board

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sizeOf is the size of the argument that an ioctl's number names; the kernel
// compares it with its own.
func sizeOf(request uint32) uintptr { return uintptr(request >> 16 & 0x1fff) }

func TestTheKernelsStructsHaveTheirSizesOnEveryPlatform(t *testing.T) {
	if got, want := unsafe.Sizeof(unix.GPIOV2LineRequest{}), sizeOf(unix.GPIO_V2_GET_LINE_IOCTL); got != want || got != 592 {
		t.Errorf("line request: %d bytes, want %d", got, want)
	}
	if got, want := unsafe.Sizeof(unix.GPIOV2LineValues{}), sizeOf(unix.GPIO_V2_LINE_GET_VALUES_IOCTL); got != want || got != 16 {
		t.Errorf("line values: %d bytes, want %d", got, want)
	}
	if got := unsafe.Sizeof(unix.GPIOV2LineEvent{}); got != 48 {
		t.Errorf("line event: %d bytes, want 48", got)
	}
	r := unix.GPIOV2LineRequest{}
	for name, tt := range map[string]struct{ got, want uintptr }{
		"consumer": {unsafe.Offsetof(r.Consumer), 256}, "config": {unsafe.Offsetof(r.Config), 288},
		"attributes": {unsafe.Offsetof(r.Config.Attrs), 32}, "number of lines": {unsafe.Offsetof(r.Num_lines), 560},
		"descriptor": {unsafe.Offsetof(r.Fd), 588},
	} {
		if tt.got != tt.want {
			t.Errorf("%s at %d, want %d", name, tt.got, tt.want)
		}
	}
}

func TestALineIsAskedForAsItIsConfigured(t *testing.T) {
	const input = 0x34 // input, both edges
	for l, want := range map[Line]uint64{
		{Number: 3}:                          input,
		{Number: 3, ActiveLow: true}:         input | 0x02,
		{Number: 3, Bias: BiasPullUp}:        input | 0x100,
		{Number: 3, Bias: BiasPullDown}:      input | 0x200,
		{Number: 3, Bias: BiasDisabled}:      input | 0x400,
		{Number: 63, Chip: "/dev/gpiochip1"}: input,
	} {
		r := lineRequest(l)
		if r.Config.Flags != want || r.Num_lines != 1 || r.Offsets[0] != l.Number || string(r.Consumer[:7]) != "hawser\x00" {
			t.Errorf("%+v: flags %#x, %d lines, the first is %d, for %q", l, r.Config.Flags, r.Num_lines, r.Offsets[0], r.Consumer)
		}
		a := r.Config.Attrs[0]
		if r.Config.Num_attrs != 1 || a.Attr.Id != 3 || a.Mask != 1 || *(*uint32)(unsafe.Pointer(&a.Attr.Flags)) != 20000 {
			t.Errorf("%+v: debounce %+v", l, a)
		}
	}
}

// followed follows a line whose edges a test writes into a pipe: the kernel's
// line is as much a file that becomes readable.
func followed(t *testing.T, value func() (bool, error)) (edges *os.File, told chan bool, stop func() error) {
	t.Helper()
	line, edges, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { edges.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan bool), make(chan error, 1)
	go func() { done <- followLine(ctx, line, value, func(active bool) { told <- active }) }()
	return edges, told, func() error { cancel(); return <-done }
}

func TestALineIsToldAtTheStartAndAtEachEdge(t *testing.T) {
	var active atomic.Bool
	edges, told, stop := followed(t, func() (bool, error) { return active.Load(), nil })
	if <-told {
		t.Error("active at the start")
	}
	for _, want := range []bool{true, false, true} {
		active.Store(want)
		edges.Write(make([]byte, 48))
		if got := <-told; got != want {
			t.Errorf("told %t, want %t", got, want)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("stopped: %v", err)
	}
}

// A chip can be unplugged.
func TestALineThatIsLostIsAnError(t *testing.T) {
	edges, told, stop := followed(t, func() (bool, error) { return true, nil })
	<-told
	edges.Close()
	defer stop()
	line, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := followLine(t.Context(), line, func() (bool, error) { return false, unix.ENODEV }, func(bool) { t.Error("told") }); !errors.Is(err, unix.ENODEV) {
		t.Errorf("no value: %v", err)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "line"))
	if err != nil {
		t.Fatal(err)
	}
	if err := followLine(t.Context(), file, func() (bool, error) { return true, nil }, func(bool) { t.Error("told") }); !errors.Is(err, os.ErrNoDeadline) {
		t.Errorf("a line whose edges cannot be awaited: %v", err)
	}
	line, w, _ = os.Pipe()
	w.Close()
	if err := followLine(t.Context(), line, func() (bool, error) { return true, nil }, func(bool) {}); !errors.Is(err, io.EOF) {
		t.Errorf("no edges: %v", err)
	}
}

func TestWhatIsNoGPIOChipIsAnError(t *testing.T) {
	never := func(bool) { t.Error("told") }
	if err := New().WatchLine(t.Context(), Line{Chip: filepath.Join(t.TempDir(), "gpiochip0")}, never); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if err := New().WatchLine(t.Context(), Line{Chip: "/dev/null"}, never); err == nil {
		t.Errorf("another device: %v", err)
	}
}
