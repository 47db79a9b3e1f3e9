package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

const openFlags = os.O_RDONLY

// The access lists of private directories and files: full access for SYSTEM, for Administrators and for the owner,
// nothing for anybody else. They are protected (nothing is inherited), and what is made in the directory inherits its own.
const (
	dirDACL  = "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;OW)"
	fileDACL = "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;OW)"
)

// guardDir refuses a directory that belongs to another user, because any user may make one in %ProgramData% first, and an
// owner can always change the list. Then it sets the list, every time. Its handle follows no link, or somebody's link could
// make it set the list of another directory.
func guardDir(path string) error {
	d, err := openGuarded(path)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(d)
	sd, err := windows.GetSecurityInfo(d, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("read owner: %w", err)
	}
	if _, err := trustedOwner(sd); err != nil {
		return err
	}
	return setList(d, dirDACL)
}

// lookDir looks at what it is. Its access list OpenDir sets, whatever it was.
func lookDir(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	return err
}

// openGuarded returns a directory with the right to change its access list.
func openGuarded(path string) (windows.Handle, error) {
	d, err := openForList(path)
	if err != nil {
		return 0, err
	}
	var info windows.ByHandleFileInformation
	err = windows.GetFileInformationByHandle(d, &info)
	if err == nil && info.FileAttributes&(windows.FILE_ATTRIBUTE_DIRECTORY|windows.FILE_ATTRIBUTE_REPARSE_POINT) != windows.FILE_ATTRIBUTE_DIRECTORY {
		err = syscall.ENOTDIR
	}
	if err != nil {
		windows.CloseHandle(d)
		return 0, err
	}
	return d, nil
}

// openForList opens a link itself and not what it leads to, which could be anybody's.
func openForList(path string) (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	return windows.CreateFile(name, windows.READ_CONTROL|windows.WRITE_DAC|windows.FILE_READ_ATTRIBUTES,
		windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
}

// setList changes this one list: what is inside a directory keeps its own, and private judges that.
func setList(h windows.Handle, sddl string) error {
	sd, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		return fmt.Errorf("parse access list: %w", err)
	}
	err = windows.SetKernelObjectSecurity(h, windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, sd)
	if err != nil {
		return fmt.Errorf("set access list: %w", err)
	}
	return nil
}

// setMode gives a new file the list of a private one if perm gives no right to others, since its directory need not be a
// guarded one. Other modes have no meaning here: such a file inherits from its directory.
func setMode(f *os.File, perm fs.FileMode) error {
	if perm&0o077 != 0 {
		return nil
	}
	h, err := openForList(f.Name())
	if err != nil {
		return err
	}
	return errors.Join(setList(h, fileDACL), windows.CloseHandle(h))
}

// private refuses a file that belongs to another user, or whose access list has an entry for others than SYSTEM,
// Administrators and the owner. Files that an elevated administrator makes belong to Administrators.
func private(f *os.File, _ fs.FileInfo) error { return judge(f, anyRight) }

// trusted refuses a file that belongs to another user, or that others may change.
func trusted(f *os.File, _ fs.FileInfo) error { return judge(f, toChange) }

// Rights of an entry of an access list, as a mask.
const (
	anyRight = ^windows.ACCESS_MASK(0)
	toChange = windows.FILE_WRITE_DATA | windows.FILE_APPEND_DATA | windows.DELETE | windows.WRITE_DAC | windows.WRITE_OWNER |
		windows.GENERIC_WRITE | windows.GENERIC_ALL
)

func judge(f *os.File, rights windows.ACCESS_MASK) error {
	sd, err := windows.GetSecurityInfo(windows.Handle(f.Fd()), windows.SE_FILE_OBJECT,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("read access list: %w", err)
	}
	return judgeSD(sd, rights)
}

// judgeSD refuses a descriptor that gives one of the rights to others. It takes a missing list for what Windows does:
// everybody has full access.
func judgeSD(sd *windows.SECURITY_DESCRIPTOR, rights windows.ACCESS_MASK) error {
	owner, err := trustedOwner(sd)
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if dacl == nil && (err == nil || errors.Is(err, windows.ERROR_OBJECT_NOT_FOUND)) {
		return fmt.Errorf("there is no access list: %w", ErrExposed)
	}
	if err != nil {
		return fmt.Errorf("read access list: %w", err)
	}
	for i := range uint32(dacl.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(dacl, i, &ace); err != nil {
			return fmt.Errorf("read access list: %w", err)
		}
		if err := harmless(ace, owner, rights); err != nil {
			return err
		}
	}
	return nil
}

// harmless accepts entries that deny, entries that are only inherited, those that give none of the rights, and those for
// the accounts of fileDACL. It refuses kinds of entries that it does not know, such as conditional ones.
func harmless(ace *windows.ACCESS_ALLOWED_ACE, owner *windows.SID, rights windows.ACCESS_MASK) error {
	switch {
	case ace.Header.AceType == windows.ACCESS_DENIED_ACE_TYPE, ace.Header.AceFlags&windows.INHERIT_ONLY_ACE != 0, ace.Mask&rights == 0:
		return nil
	case ace.Header.AceType != windows.ACCESS_ALLOWED_ACE_TYPE:
		return fmt.Errorf("access list has an entry of kind %d: %w", ace.Header.AceType, ErrExposed)
	}
	sid := (*windows.SID)(unsafe.Pointer(&ace.SidStart))
	if sid.Equals(owner) || sid.IsWellKnown(windows.WinCreatorOwnerRightsSid) ||
		sid.IsWellKnown(windows.WinLocalSystemSid) || sid.IsWellKnown(windows.WinBuiltinAdministratorsSid) {
		return nil
	}
	return fmt.Errorf("access list has an entry for %s, take it away: %w", nameOf(sid), ErrExposed)
}

// trustedOwner returns the owner when it is SYSTEM, Administrators or the user that this process runs as.
func trustedOwner(sd *windows.SECURITY_DESCRIPTOR) (*windows.SID, error) {
	owner, _, err := sd.Owner()
	if err != nil {
		return nil, fmt.Errorf("read owner: %w", err)
	}
	if owner.IsWellKnown(windows.WinLocalSystemSid) || owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) {
		return owner, nil
	}
	self, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return nil, fmt.Errorf("ask who runs this: %w", err)
	}
	if !owner.Equals(self.User.Sid) {
		return nil, fmt.Errorf("it belongs to %s, give it to Administrators: %w", nameOf(owner), ErrExposed)
	}
	return owner, nil
}

// nameOf is the account name of sid, or its number if there is no such account any more.
func nameOf(sid *windows.SID) string {
	account, domain, _, err := sid.LookupAccount("")
	if err != nil {
		return sid.String()
	}
	return domain + `\` + account
}

// syncDir is nothing: a directory handle cannot be flushed (see the package comment).
func syncDir(*os.File) error { return nil }

// createLocked returns the file path, empty, which nobody else can open for writing until it is closed: that is the lock.
// It shares deletion, or it could not be renamed while it is open. errBusy means that another process has it open.
func createLocked(path string) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	h, err := windows.CreateFile(name, windows.GENERIC_WRITE, windows.FILE_SHARE_READ|windows.FILE_SHARE_DELETE, nil,
		windows.CREATE_ALWAYS, windows.FILE_ATTRIBUTE_NORMAL|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
		return nil, errBusy
	}
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

// giveToOwner has nothing to do: guardDir gives a directory's files to its owner.
func giveToOwner(*os.File) error { return nil }
