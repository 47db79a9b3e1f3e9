package main

import "syscall"

// attributes give each child a process group of its own, so that ^C reaches the demo alone, which ends them in the
// right order; and end it with the demo, should that be killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
