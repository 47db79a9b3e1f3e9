package server

import (
	"errors"
	"io/fs"

	"hawser/transport"
)

// Unreachable reports whether err says that no Access Server could be reached,
// or none that proves to be ours.
func Unreachable(err error) bool {
	_, ok := errors.AsType[*transport.DialError](err)
	return ok || transport.ReasonOf(err) == transport.BadTime
}

// Refused reports whether err is an Access Server's decision: to try again
// would not change it.
func Refused(err error) bool {
	if Unreachable(err) {
		return false
	}
	switch transport.ReasonOf(err) {
	case transport.BadCode, transport.BadCSR, transport.Revoked, transport.WrongKey, transport.WrongKind, transport.WrongName:
		return true
	}
	return false
}

// Advice says what to do about an error of Init or Enroll, or nothing.
func Advice(err error) string {
	if errors.Is(err, fs.ErrExist) {
		return "what is there is never overwritten, choose another --dir"
	}
	switch transport.ReasonOf(err) {
	case transport.BadCode:
		return "make a new code with hawser relay add"
	case transport.WrongKind:
		return "a relay needs a code of hawser relay add"
	case transport.WrongName:
		return "the code is another relay's, choose another --dir"
	case transport.Busy:
		return "wait a minute and try again"
	case transport.WrongRoot, transport.TLSIntercepted:
		return "compare --root or --pin with what hawser-server init printed"
	}
	if Unreachable(err) {
		return "compare --access with where hawser-server run says that it is ready, and see whether a firewall is between"
	}
	return ""
}
