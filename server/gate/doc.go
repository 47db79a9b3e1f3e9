// Package gate gives places to connections whose client has not proven yet who it is (wire §1.3). Whoever can reach a
// port can take a place; so places are few, a source has a share of them, and when there is none left the source with the
// most loses one. What is authenticated needs no place, and cannot lose any.
//
//	g := gate.New("hellos", gate.Places(1024, descriptors, 8), log, set)
//	place := g.Enter(conn.RemoteAddr(), func() { conn.Close() }) // measure and act: Gate
//	defer place.Leave()
//
// Who gets in and who goes is decided by a book (book.go), which is pure: it has no clock, no lock and no connection.
package gate
