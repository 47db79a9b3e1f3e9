package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/windows"
)

// The owner in the table, BA, is Administrators, who own what an elevated administrator makes.
func TestAnAccessListIsJudgedByWhomItLetsIn(t *testing.T) {
	const stranger = "S-1-5-21-1-2-3-1001"
	for sddl, want := range map[string]string{
		"O:BAD:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;OW)":      "",
		"O:SYD:(A;ID;FA;;;SY)(A;ID;FA;;;BA)(A;ID;FA;;;OW)": "",
		"O:BAD:P(A;;FA;;;BA)":                              "",
		"O:BAD:P":                                          "", // an empty list lets nobody in
		"O:BAD:P(D;;FA;;;WD)(A;;FA;;;BA)":                  "",
		"O:BAD:P(A;OICIIO;FA;;;CO)(A;;FA;;;BA)":            "",
		"O:BAD:P(A;;FA;;;BA)(A;;FR;;;BU)":                  "entry for",
		"O:BAD:P(A;;FA;;;BA)(A;;FR;;;WD)":                  "entry for",
		"O:BAD:P(A;;FA;;;BA)(A;;FR;;;AU)":                  "entry for",
		"O:BAD:P(A;;FA;;;BA)(A;;FW;;;IU)":                  "entry for",
		"O:BAD:P(A;;FA;;;BA)(A;;RC;;;" + stranger + ")":    "entry for " + stranger,
		"O:BA": "no access list",
		"O:" + stranger + "D:P(A;;FA;;;SY)(A;;FA;;;BA)": "belongs to " + stranger,
		"O:BUD:P(A;;FA;;;SY)(A;;FA;;;BA)":               "belongs to",
	} {
		sd, err := windows.SecurityDescriptorFromString(sddl)
		if err != nil {
			t.Errorf("%s: %v", sddl, err)
			continue
		}
		err = judgeSD(sd, anyRight)
		if want == "" && err != nil || want != "" && (!errors.Is(err, ErrExposed) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", sddl, err, want)
		}
	}
}

// Others may read a configuration, and no more.
func TestWhatOthersMayChangeIsNotTrusted(t *testing.T) {
	for sddl, want := range map[string]error{
		"O:BAD:P(A;;FA;;;BA)(A;;FR;;;WD)":       nil,
		"O:BAD:P(A;;FA;;;BA)(A;;FRFX;;;BU)":     nil,
		"O:BAD:P(A;;FA;;;BA)(A;;FW;;;BU)":       ErrExposed,
		"O:BAD:P(A;;FA;;;BA)(A;;0x2;;;AU)":      ErrExposed,
		"O:BAD:P(A;;FA;;;BA)(A;;SD;;;AU)":       ErrExposed,
		"O:BAD:P(A;;FA;;;BA)(A;;WDWO;;;AU)":     ErrExposed,
		"O:BAD:P(A;;FA;;;BA)(A;;FA;;;WD)":       ErrExposed,
		"O:BUD:P(A;;FA;;;BA)":                   ErrExposed,
		"O:BAD:P(A;;FA;;;BA)(A;;GA;;;WD)":       ErrExposed,
		"O:BAD:P(D;;FW;;;WD)(A;;FR;;;WD)":       nil,
		"O:BAD:P(A;OICIIO;FA;;;CO)(A;;FR;;;WD)": nil,
	} {
		sd, err := windows.SecurityDescriptorFromString(sddl)
		if err != nil {
			t.Errorf("%s: %v", sddl, err)
			continue
		}
		if err := judgeSD(sd, toChange); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", sddl, err, want)
		}
	}
}

// Windows writes a file of the new directory with the directory's list; the second OpenDir and the reading are another
// start of the agent.
func TestAPrivateFileIsWrittenReplacedAndRead(t *testing.T) {
	dir := filepath.Join(tempDir(t), "made", "state")
	for _, content := range []string{"old", "new and longer"} {
		if err := OpenDir(dir); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "device.key")
		if err := WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := ReadPrivate(path, 100); err != nil || string(b) != content {
			t.Errorf("read %q, %v; want %q", b, err, content)
		}
	}
	if _, err := ReadPrivate(filepath.Join(dir, "device.key"), 3); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if _, err := ReadPrivate(filepath.Join(dir, "none"), 3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestASecondWriterWaitsAndWhatACutLeftIsReplaced(t *testing.T) {
	dir := tempDir(t)
	path := filepath.Join(dir, "device.key")
	if err := os.WriteFile(filepath.Join(dir, ".device.key.durable"), []byte("torn by a cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	var second sync.WaitGroup
	w := writer{after: func(step string) {
		if step != "write" {
			return
		}
		if err := (writer{}).writeFile(path, nil, 0o600); !errors.Is(err, errBusy) {
			t.Errorf("second writer without patience: %v", err)
		}
		second.Go(func() {
			if err := WriteFile(path, []byte("second"), 0o600); err != nil {
				t.Error(err)
			}
		})
	}}
	if err := w.writeFile(path, []byte("first"), 0o600); err != nil {
		t.Error(err)
	}
	second.Wait()
	if b, err := ReadPrivate(path, 100); err != nil || string(b) != "second" {
		t.Errorf("read %q, %v", b, err)
	}
	if entries, err := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("directory holds %v, %v", entries, err)
	}
}

func TestAKeyOpenedToOthersIsRefusedUntilTheyAreShutOut(t *testing.T) {
	dir := filepath.Join(tempDir(t), "state")
	path := filepath.Join(dir, "device.key")
	if err := errors.Join(OpenDir(dir), WriteFile(path, []byte("key"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		sddl string
		want error
	}{
		{"D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;OW)(A;;FR;;;WD)", ErrExposed},
		{fileDACL, nil},
	} {
		setDACL(t, path, step.sddl)
		if _, err := ReadPrivate(path, 100); !errors.Is(err, step.want) {
			t.Errorf("%s: %v, want %v", step.sddl, err, step.want)
		}
	}
}

func TestOpenDirClosesADirectoryThatWasOpen(t *testing.T) {
	dir := tempDir(t)
	setDACL(t, dir, "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;OW)(A;OICI;FA;;;WD)")
	if err := OpenDir(dir); err != nil {
		t.Fatal(err)
	}
	sd, err := windows.GetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	if err := judgeSD(sd, anyRight); err != nil {
		t.Errorf("%v: %v", sd, err)
	}
}

func TestOpenDirRefusesWhatIsNoDirectory(t *testing.T) {
	file := filepath.Join(tempDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := OpenDir(file); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file: %v, want ENOTDIR", err)
	}
}

func setDACL(t *testing.T, path, sddl string) {
	t.Helper()
	h, err := openForList(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(setList(h, sddl), windows.CloseHandle(h)); err != nil {
		t.Fatal(err)
	}
}

// tempDir is t.TempDir for Wine, which knows no way to remove that os.RemoveAll takes.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "durable-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { empty(t, dir) })
	return dir
}

func empty(t *testing.T, path string) {
	entries, _ := os.ReadDir(path) // none of a file
	for _, e := range entries {
		empty(t, filepath.Join(path, e.Name()))
	}
	if err := os.Remove(path); err != nil {
		t.Error(err)
	}
}
