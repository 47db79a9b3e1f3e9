// Package server is a Hawser server as a whole: its configuration, its first keys, and the one listener of all its roles.
//
// Which roles a server has is said by the sections of its configuration:
// access (server/access), relay (server/relay), or both in one process, which
// is what Init makes. The ALPN protocol of each connection chooses among them
// (wire §1.2), on each port.
//
//	made, err := server.Init(ctx, server.Options{Dir: dir, Hosts: hosts})   // once
//	config, err := server.Load(made.Config)
//	err = (&server.Server{Config: config}).Run(ctx)                        // until ctx is cancelled
//
// A relay on a machine of its own is made by Enroll instead, with a code that a
// Manager got for it.
//
// The files that Init and Enroll make, and who needs them:
//
//	server.yaml       the configuration
//	root.pem          the pinned root: every client gets it, nobody needs to hide it
//	root/             the root's key: nobody needs it to run; to be kept somewhere else (Init)
//	access/           keys of the Access Server, each with its certificate, and its store (Init)
//	relay/            the relay's activation code, later its key and identity
package server
