package durable

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

const openFlags = os.O_RDONLY

// privateDACL is protected (nothing inherited) and inherited by every file inside: full access for SYSTEM, for
// Administrators and for the owner, nothing for anybody else.
const privateDACL = "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;OW)"

// guardDir sets the access list every time, because any user may have made the directory first.
func guardDir(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return syscall.ENOTDIR
	}
	sd, err := windows.SecurityDescriptorFromString(privateDACL)
	if err != nil {
		return fmt.Errorf("parse access list: %w", err)
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return fmt.Errorf("parse access list: %w", err)
	}
	err = windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
	if err != nil {
		return fmt.Errorf("set access list: %w", err)
	}
	return nil
}

// private is always satisfied: mode bits mean nothing here, and the directory is guarded.
func private(fs.FileInfo, fs.FileMode) error { return nil }

// syncDir is nothing: a directory handle cannot be flushed (see the package comment).
func syncDir(string) error { return nil }

// escapeGlob: filepath.Match knows no escapes here, and only '[' can stand in a Windows name.
func escapeGlob(path string) string { return path }
