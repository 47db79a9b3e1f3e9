//go:build !linux

package board

import "context"

// LinkUp blocks until ctx ends: this platform does not tell.
func (b *Board) LinkUp(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}
