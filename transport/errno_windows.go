package transport

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// The system errors behind the reasons refused, unreachable and reset: Winsock
// has its own numbers, which errors.Is does not match with POSIX names.
var (
	errnoRefused     = []syscall.Errno{windows.WSAECONNREFUSED}
	errnoUnreachable = []syscall.Errno{windows.WSAEHOSTUNREACH, windows.WSAENETUNREACH, windows.WSAENETDOWN, windows.WSAEADDRNOTAVAIL, windows.WSAEAFNOSUPPORT, windows.WSAEACCES}
	errnoReset       = []syscall.Errno{windows.WSAECONNRESET, windows.WSAECONNABORTED}
)
