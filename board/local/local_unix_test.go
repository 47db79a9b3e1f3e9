//go:build !windows

package local

import (
	"path/filepath"
	"testing"
)

func newAddress(t *testing.T) string { return filepath.Join(t.TempDir(), "run", "s") }
