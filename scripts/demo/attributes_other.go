//go:build !linux

package main

import "syscall"

// attributes are the system's own: ^C reaches the children as well as the demo, and they end a little out of order.
func attributes() *syscall.SysProcAttr { return nil }
