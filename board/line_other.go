//go:build !linux

package board

import "context"

func watchLine(context.Context, Line, func(bool)) error { return ErrNoDevice }
