package board

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Line flags of the second version of the GPIO character device, which Linux has since 5.10 (its
// include/uapi/linux/gpio.h).
const (
	lineActiveLow    = 1 << 1
	lineInput        = 1 << 2
	lineEdgeRising   = 1 << 4
	lineEdgeFalling  = 1 << 5
	lineBiasPullUp   = 1 << 8
	lineBiasPullDown = 1 << 9
	lineBiasDisabled = 1 << 10
)

// Edges alone would not do: a chip behind USB or I2C that dies sends none, and the switch would stay unlocked.
const (
	lineDebounce = 20 * time.Millisecond // contacts of a switch bounce for less
	lineReread   = 10 * time.Second      // to notice a chip that no longer answers
)

// watchLine is Board.WatchLine on the real machine.
func watchLine(ctx context.Context, l Line, tell func(active bool)) error {
	line, err := openLine(l)
	if err == nil {
		err = followLine(ctx, line, func() (bool, error) { return lineValue(line) }, tell)
	}
	if err != nil {
		return fmt.Errorf("watch line %d of %s: %w", l.Number, l.Chip, err)
	}
	return nil
}

// openLine opens a line for input. The kernel queues its edges from then on. The chip is closed again, the line stays
// requested by its own descriptor until that is closed: the kernel then lets nobody else change its bias.
func openLine(l Line) (*os.File, error) {
	chip, err := os.OpenFile(l.Chip, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer chip.Close()
	request := lineRequest(l)
	if err := ioctl(chip, unix.GPIO_V2_GET_LINE_IOCTL, unsafe.Pointer(&request)); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(int(request.Fd), true); err != nil { // so that Close ends a Read
		unix.Close(int(request.Fd))
		return nil, err
	}
	return os.NewFile(uintptr(request.Fd), l.Chip), nil
}

// The consumer's name is shown by gpioinfo, so that whoever finds the line taken knows by whom.
func lineRequest(l Line) unix.GPIOV2LineRequest {
	request := unix.GPIOV2LineRequest{Num_lines: 1}
	request.Offsets[0] = l.Number
	copy(request.Consumer[:], "hawser")
	request.Config.Flags = lineInput | lineEdgeRising | lineEdgeFalling
	if l.ActiveLow {
		request.Config.Flags |= lineActiveLow
	}
	switch l.Bias {
	case BiasPullUp:
		request.Config.Flags |= lineBiasPullUp
	case BiasPullDown:
		request.Config.Flags |= lineBiasPullDown
	case BiasDisabled:
		request.Config.Flags |= lineBiasDisabled
	}
	request.Config.Num_attrs = 1
	// By the kernel, which does it in software where the chip cannot: a bouncing contact would end and refuse sessions
	// for nothing.
	debounce := &request.Config.Attrs[0]
	debounce.Mask = 1 // the first of the lines
	debounce.Attr.Id = unix.GPIO_V2_LINE_ATTR_ID_DEBOUNCE
	*(*uint32)(unsafe.Pointer(&debounce.Attr.Flags)) = uint32(lineDebounce.Microseconds()) // a union in C
	return request
}

// lineValue reads whether a line is active, debounced. Active low is applied by the kernel, so every board means the
// same by active.
func lineValue(line *os.File) (active bool, err error) {
	values := unix.GPIOV2LineValues{Mask: 1}
	err = ioctl(line, unix.GPIO_V2_LINE_GET_VALUES_IOCTL, unsafe.Pointer(&values))
	return values.Bits&1 != 0, err
}

// followLine reads the value at the start, at each edge and every 10 s, until ctx ends. It ignores the content of the
// records, since after several edges only the present value counts.
func followLine(ctx context.Context, line *os.File, value func() (bool, error), tell func(active bool)) error {
	defer line.Close()
	defer context.AfterFunc(ctx, func() { line.Close() })()
	edges := make([]byte, 16*unsafe.Sizeof(unix.GPIOV2LineEvent{})) // the kernel queues as many
	for {
		err := line.SetReadDeadline(time.Now().Add(lineReread)) // before the first tell: it fails if the file cannot wait for edges
		var active bool
		if err == nil {
			active, err = value()
		}
		if err == nil && ctx.Err() == nil {
			tell(active)
			_, err = line.Read(edges)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// ioctl does not use File.Fd, which would set the file to blocking, so that Close would not end a Read.
func ioctl(f *os.File, request uintptr, argument unsafe.Pointer) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	err = conn.Control(func(fd uintptr) { _, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(argument)) })
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}
