// Package mux carries streams over one line between the two ends of a session (session §3, §4).
//
// A line is an authenticated, encrypted connection; mux knows nothing of how it came about. It frames, numbers and
// acknowledges; gives and keeps credit; and bounds what is on its way, so that a keystroke never waits behind a
// download. Its decisions are pure and in files of their own:
//
//	frame     what goes over the line: types, limits, parser
//	window    how many bytes may be on their way (session §3.6)
//	credit    how far a sender may go ahead of a reader (session §4.2)
//	budget    what all sessions of a process may hold together
package mux
