// Package lab tests against real servers and real firewalls, in the network lab that scripts/lab builds (docs/lab.md).
//
// What is tested is the lab itself, and in it the three programs as they are released: their agent behind its firewall
// (rig_test.go), and whoever else stands there.
//
// There is nothing to import. The test program starts itself anew within a lab, so that plain `go test` runs it; without
// the programs that the lab consists of it fails and says how to get them. A test that needs a process on a host of the
// lab starts this program there, in one of its roles (roles_test.go).
//
// Tests share one lab and do not run in parallel. One that changes the firewall or pulls a cable undoes that.
package lab
