package netcheckcmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hawser/internal/durable"
	"hawser/probe/netcheck"
)

// checkSheetFile returns why a sheet could not be written to file. It is called before
// the measurement, which takes up to a minute. It tries nothing out: a file that was made and then not written would
// look like a report.
func checkSheetFile(file string) error {
	why := error(nil)
	if dir, err := os.Stat(filepath.Dir(file)); err != nil {
		why = pathless(err)
	} else if !dir.IsDir() {
		why = errors.New("its folder is no folder")
	}
	if info, err := os.Lstat(file); err == nil && !info.Mode().IsRegular() { // such as a device, which must not be replaced by a file
		why = errors.New("it is no regular file")
	}
	if why == nil {
		return nil
	}
	return fmt.Errorf("write report %s: %w: name a file in a folder that exists", file, why)
}

// writeSheet writes the sheet for the site's IT: HTML if the name of the
// file ends in .html, else plain text. After an error an existing file is unchanged. It is readable by all: the sheet
// is made to be handed on, and holds no secret.
func (f *check) writeSheet(r netcheck.Report) error {
	now := f.known.Now
	if now == nil {
		now = time.Now
	}
	v := f.program.Version
	s := &netcheck.Sheet{Report: r, Language: netcheck.Language(f.language), At: now(), Program: v.Program + " " + v.Version,
		PC: f.program.PC, ALPN: f.program.alpn(), Contact: f.contact, Device: f.known.Device, Gateway: f.known.Gateway,
		Unreadable: f.known.Unreadable, Reach: f.known.Reach, MAC: netcheck.HardwareAddr(r.Local)}
	if f.given.Name != "" {
		s.Device = f.given.Name
	}
	if name, err := os.Hostname(); err == nil {
		s.Machine = name
	}
	b := s.Text()
	if strings.EqualFold(filepath.Ext(f.sheet), ".html") {
		b = s.HTML()
	}
	if err := durable.WriteFile(f.sheet, b, 0o644); err != nil {
		return fmt.Errorf("write report %s: %w: check the folder and the room in it", f.sheet, pathless(err))
	}
	return nil
}

// pathless removes the path from an error whose message names it already. The path would otherwise stand in one line
// twice.
func pathless(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
