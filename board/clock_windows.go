package board

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// setClock needs the privilege SeSystemtimePrivilege, which services have and SetSystemTime enables by itself. Windows
// sets the hardware clock as well.
func setClock(to time.Time) error {
	st := systemTime(to)
	set := windows.NewLazySystemDLL("kernel32.dll").NewProc("SetSystemTime")
	if ok, _, err := set.Call(uintptr(unsafe.Pointer(&st))); ok == 0 {
		if errors.Is(err, windows.ERROR_PRIVILEGE_NOT_HELD) {
			err = windows.ERROR_ACCESS_DENIED // which is fs.ErrPermission
		}
		return fmt.Errorf("set system clock: %w", err)
	}
	return nil
}

// systemTime is t as SetSystemTime wants it, in UTC.
func systemTime(t time.Time) windows.Systemtime {
	t = t.UTC()
	return windows.Systemtime{
		Year: uint16(t.Year()), Month: uint16(t.Month()), DayOfWeek: uint16(t.Weekday()), Day: uint16(t.Day()),
		Hour: uint16(t.Hour()), Minute: uint16(t.Minute()), Second: uint16(t.Second()),
		Milliseconds: uint16(t.Nanosecond() / int(time.Millisecond)),
	}
}

// Windows slews by changing the length of a tick for as long as it takes, so somebody would have to stop it again.
func slewClock(time.Duration) error { return ErrNoClock }

// clockKept asks the service manager about W32Time, which sets the clock when it runs.
func clockKept() (bool, error) {
	manager, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return false, fmt.Errorf("open service manager: %w", err)
	}
	defer windows.CloseServiceHandle(manager)
	name, err := windows.UTF16PtrFromString("W32Time")
	if err != nil {
		return false, err
	}
	service, err := windows.OpenService(manager, name, windows.SERVICE_QUERY_STATUS)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open service W32Time: %w", err)
	}
	defer windows.CloseServiceHandle(service)
	var status windows.SERVICE_STATUS
	if err := windows.QueryServiceStatus(service, &status); err != nil {
		return false, fmt.Errorf("query service W32Time: %w", err)
	}
	// One that starts, stops or pauses counts as running: two programs that set one clock fight.
	return status.CurrentState != windows.SERVICE_STOPPED, nil
}

// uptimeSince reads GetTickCount64, which counts the time of suspends as well, in steps of about 16 ms.
func uptimeSince(time.Time) func() time.Duration { return windows.DurationSinceBoot }
