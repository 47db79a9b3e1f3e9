//go:build !windows

package service

import "context"

// Run calls f and returns its error. Outside Windows a service is an ordinary process, which the caller's signal context
// stops; under the service manager of Windows its stop order ends ctx instead.
func Run(ctx context.Context, f func(context.Context) error) error { return f(ctx) }
