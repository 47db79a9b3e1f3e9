package board

import "golang.org/x/sys/windows"

// programData asks the system, which knows where %ProgramData% was moved to.
func programData() string {
	dir, err := windows.KnownFolderPath(windows.FOLDERID_ProgramData, 0)
	if err != nil {
		return `C:\ProgramData`
	}
	return dir
}
