// Package relay pairs the two ends of a session and moves bytes between them that it cannot read.
//
// A Server is a client of the Access Server: it makes a key, enrolls with an
// activation code (unless Enroll has done that before), registers over a control
// connection, on which it also reports its load, and renews its certificate at half
// of its life. The ends of sessions connect to it. For each connection (wire §5):
//
//	ServeConn    limits      10 s, 64 KiB, a fixed number of such connections (§5.3)
//	  judge      decides     whose certificate, which grant: pure, see judge.go
//	  used       remembers   grants that were used
//	  pairing    pairs       one slot for each role, session and epoch; 15 s for the other end
//	  pipe       forwards    each end's goroutine, from its connection to the other one: frames, and after the switch
//	    mover    moves       bytes from socket to socket, by pipes of the system or by a buffer
//	    limiter  slows down  what is over a limit, in fair turns
//	measure      answers     a first frame echo, for clients that could join, without a grant (§5.4)
//
// The relay asks no other server about a join. The grant has everything, and is for
// one instance: that of the process which remembers the grants that were used.
// It carries the TLS of the ends, and logs nothing of it.
package relay
