//go:build linux

package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Tests, demo and lab may run as root on somebody's machine. Whatever folder of theirs runs the agent also writes that it is
// to leave the clock alone, which is not the default, or takes from it what setting a clock needs.
func TestWhoeverRunsAnAgentHereForbidsItToSetTheClock(t *testing.T) {
	const never, unable = "set_system_clock: never", "--bounding-set=-sys_time"
	runs := regexp.MustCompile(`hawser-agent"[^\n]*"run"`)
	running, forbidding := map[string]bool{}, map[string]bool{}
	for _, top := range []string{"../../internal", "../../scripts"} {
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			text, err := os.ReadFile(path)
			dir := filepath.Dir(path)
			running[dir] = running[dir] || runs.Match(text)
			forbidding[dir] = forbidding[dir] || strings.Contains(string(text), never+`}`) || strings.Contains(string(text), never+`\n`) ||
				strings.Contains(string(text), unable)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	found := 0
	for dir, is := range running {
		if is {
			found++
			if !forbidding[dir] {
				t.Errorf("%s runs hawser-agent and neither writes %q nor takes the capability", dir, never)
			}
		}
	}
	if found < 3 { // these tests, the lab's, the demo
		t.Errorf("only %d folders run an agent: does this test still see them?", found)
	}
}
