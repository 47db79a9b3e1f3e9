package local

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// pipeDACL gives access to SYSTEM, Administrators and the user of the server. FA includes the right to make another
// instance of the pipe, so nobody else can answer in the server's place.
const pipeDACL = "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;OW)"

const pipeBuffer = 64 << 10 // bytes: an answer that fits is written without waiting for the reader

// In is the address that belongs to the state directory dir: names of pipes are machine-wide and know no directories.
func In(dir string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(filepath.Clean(dir))))
	return fmt.Sprintf(`\\.\pipe\hawser-agent-%x`, sum[:8])
}

// Listen makes the named pipe address. Any user may take a free name, so the first instance is made only if there is none
// (ErrTaken), and from then on Accept always keeps one, so that the name is never free.
func Listen(address string) (net.Listener, error) {
	l := &listener{address: address}
	var err error
	if l.next, err = l.instance(windows.FILE_FLAG_FIRST_PIPE_INSTANCE); err != nil {
		if errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_PIPE_BUSY) {
			err = ErrTaken
		}
		return nil, err
	}
	if l.closing, err = windows.CreateEvent(nil, 1, 0, nil); err == nil {
		l.connected, err = windows.CreateEvent(nil, 1, 0, nil)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// A listener has always one instance of the pipe that waits for a client.
type listener struct {
	address   string
	closing   windows.Handle // event
	connected windows.Handle // event of overlapped
	wake      sync.Once      // sets it

	accepting  sync.Mutex // guards all below; Accept holds it while it waits
	next       windows.Handle
	overlapped windows.Overlapped
	closed     bool
}

// instance makes one end of the pipe for one client.
func (l *listener) instance(flags uint32) (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString(l.address)
	if err != nil {
		return 0, err
	}
	sddl := pipeDACL
	if windows.GetCurrentProcessToken().IsElevated() {
		sddl = "O:BA" + sddl // so that clients of one administrator accept the server of another
	}
	sd, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		return 0, fmt.Errorf("parse access list: %w", err)
	}
	sa := &windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(*sa))
	return windows.CreateNamedPipe(name, windows.PIPE_ACCESS_DUPLEX|windows.FILE_FLAG_OVERLAPPED|flags,
		windows.PIPE_TYPE_BYTE|windows.PIPE_REJECT_REMOTE_CLIENTS, windows.PIPE_UNLIMITED_INSTANCES, pipeBuffer, pipeBuffer, 0, sa)
}

// Accept waits in a blocking call. The runtime's poller can wait only for operations that it has started, so it gets the
// pipe after the client has connected.
func (l *listener) Accept() (net.Conn, error) {
	l.accepting.Lock()
	defer l.accepting.Unlock()
	if l.closed {
		return nil, net.ErrClosed
	}
	err := l.await()
	for errors.Is(err, windows.ERROR_NO_DATA) { // the client has closed already
		windows.DisconnectNamedPipe(l.next)
		err = l.await()
	}
	if err != nil {
		return nil, err
	}
	next, err := l.instance(0)
	if err != nil {
		windows.DisconnectNamedPipe(l.next)
		return nil, err
	}
	c := newConn(l.next, l.address)
	l.next = next
	return c, nil
}

// await returns when a client is connected to next.
func (l *listener) await() error {
	l.overlapped = windows.Overlapped{HEvent: l.connected}
	err := windows.ConnectNamedPipe(l.next, &l.overlapped)
	switch {
	case err == nil, errors.Is(err, windows.ERROR_PIPE_CONNECTED):
		return nil
	case !errors.Is(err, windows.ERROR_IO_PENDING):
		return err
	}
	which, waitErr := windows.WaitForMultipleObjects([]windows.Handle{l.connected, l.closing}, false, windows.INFINITE)
	if waitErr != nil || which != windows.WAIT_OBJECT_0 {
		windows.CancelIoEx(l.next, &l.overlapped)
	}
	var n uint32 // until this returns, overlapped is the system's
	err = windows.GetOverlappedResult(l.next, &l.overlapped, &n, true)
	if errors.Is(err, windows.ERROR_OPERATION_ABORTED) {
		err = errors.Join(waitErr, net.ErrClosed)
	}
	return err
}

// Close ends an Accept that waits, and frees the name.
func (l *listener) Close() error {
	l.wake.Do(func() { windows.SetEvent(l.closing) })
	l.accepting.Lock()
	defer l.accepting.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.closed = true
	return errors.Join(windows.CloseHandle(l.next), windows.CloseHandle(l.connected), windows.CloseHandle(l.closing))
}

func (l *listener) Addr() net.Addr { return pipeAddr(l.address) }

// dialPatience bounds the wait for an instance of the pipe that is not in use, which is short unless somebody holds them.
const dialPatience = 2 * time.Second

// Dial connects to the server at address, if it runs as SYSTEM, an administrator or this user. The error is ErrStranger if
// it does not, fs.ErrPermission if this user may not connect, and fs.ErrNotExist if there is no server.
func Dial(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	h, err := openPipe(address)
	for errors.Is(err, windows.ERROR_PIPE_BUSY) {
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(10 * time.Millisecond):
			h, err = openPipe(address)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := servedByOurs(h); err != nil {
		windows.CloseHandle(h)
		return nil, err
	}
	return newConn(h, address), nil
}

// openPipe does not let the server impersonate the client.
func openPipe(address string) (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString(address)
	if err != nil {
		return 0, err
	}
	return windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_OVERLAPPED|windows.SECURITY_SQOS_PRESENT|windows.SECURITY_ANONYMOUS, 0)
}

// servedByOurs checks who serves the pipe: while no agent runs, any user may make a pipe with its name.
func servedByOurs(h windows.Handle) error {
	sd, err := windows.GetSecurityInfo(h, windows.SE_KERNEL_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("read owner of the pipe: %w", err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return fmt.Errorf("read owner of the pipe: %w", err)
	}
	self, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return fmt.Errorf("ask who runs this: %w", err)
	}
	if owner.IsWellKnown(windows.WinLocalSystemSid) || owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) || owner.Equals(self.User.Sid) {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrStranger, owner)
}

// A conn is one end of a pipe. Its file does overlapped I/O, so that deadlines work.
type conn struct {
	*os.File
	address pipeAddr
}

func newConn(h windows.Handle, address string) conn {
	return conn{os.NewFile(uintptr(h), address), pipeAddr(address)}
}

func (c conn) LocalAddr() net.Addr  { return c.address }
func (c conn) RemoteAddr() net.Addr { return c.address }

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }
