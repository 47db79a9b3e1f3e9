//go:build !windows

package local

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func newAddress(t *testing.T) string { return filepath.Join(t.TempDir(), "run", "s") }

func TestAnAddressIsAtMostAsLongAsTheSystemTakes(t *testing.T) {
	dir := t.TempDir()
	most := 107 - len(dir) - 1
	for n, want := range map[int]error{most: nil, most + 1: ErrTooLong} {
		address := filepath.Join(dir, strings.Repeat("s", n))
		l, err := Listen(address)
		if !errors.Is(err, want) {
			t.Errorf("listen on %d bytes: %v", len(address), err)
		}
		c, err := Dial(t.Context(), address)
		if !errors.Is(err, want) {
			t.Errorf("dial %d bytes: %v", len(address), err)
		}
		if want == nil {
			c.Close()
			l.Close()
		}
	}
}
