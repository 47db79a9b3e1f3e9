package local

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

func newAddress(t *testing.T) string { return In(t.Name() + rand.Text()) }

// Windows takes upper and lower case of a path for the same.
func TestTheSameDirectoryHasTheSamePipe(t *testing.T) {
	if a, b := In(`C:\ProgramData\Hawser\`), In(`c:\programdata\x\..\hawser`); a != b || !strings.HasPrefix(a, `\\.\pipe\hawser-agent-`) {
		t.Errorf("%s and %s", a, b)
	}
}

func TestNobodyServesAnUnknownPipe(t *testing.T) {
	if _, err := Dial(t.Context(), newAddress(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want fs.ErrNotExist", err)
	}
}

// The list of the pipe itself, as another process would read it.
func TestThePipeIsClosedToOtherUsers(t *testing.T) {
	address := newAddress(t)
	l, err := Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sd, err := windows.GetSecurityInfo(l.(*listener).next, windows.SE_KERNEL_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	if text := sd.String(); !strings.Contains(text, "SY)") || !strings.Contains(text, "BA)") || strings.Contains(text, "WD)") {
		t.Errorf("access list %s", text)
	}
}
