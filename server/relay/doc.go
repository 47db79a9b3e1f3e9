// Package relay pairs the two ends of a session and moves bytes between them that it cannot read.
//
// A Server is a client of the Access Server first: it makes its own key,
// enrols with an activation code (or Enrol has done it before), registers over a
// control connection on which it also tells how much it carries, and renews its
// certificate at half of its life. Then the ends of sessions come
// to it. What happens to one connection (wire §5):
//
//	ServeConn    limits      10 s, 64 KiB, a fixed number of such connections (§5.3)
//	  judge      decides     whose certificate, which grant: pure, see judge.go
//	  used       remembers   grants that were used
//	  table      pairs       one seat a role, session and epoch; 15 s for the other one
//	  pipe       moves       each end's goroutine copies from its own connection to the other's
//	measure      answers     a first frame echo: for whoever could join, without a grant (§5.4)
//
// The relay asks nobody about a join: the grant says it all, and the instance
// in its audience dies with the process that remembers which grants were used.
// What it carries is TLS between the ends; nothing of it is ever logged.
package relay
