//go:build unix

package service

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInstallDoesNotShadowAPackage(t *testing.T) {
	unit := filepath.Join(t.TempDir(), "hawser-agent.service")
	fake := &control{}
	s := with(fake)
	s.packaged = []string{unit}
	if err := os.WriteFile(unit, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Install(); err == nil || !strings.Contains(err.Error(), "systemctl enable --now") {
		t.Errorf("%v, want the advice to use the package's unit", err)
	}
	if err := os.Remove(unit); err != nil {
		t.Fatal(err)
	}
	if err := s.Install(); err != nil || len(fake.calls) != 1 {
		t.Errorf("without a package: %v, asked %q", err, fake.calls)
	}
}
