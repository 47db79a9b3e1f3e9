package server

import (
	"errors"
	"io/fs"

	"hawser/internal/answer"
	"hawser/transport"
)

// ExitCode is answer.Code of an error of this package.
func ExitCode(err error) int {
	if _, ok := errors.AsType[*ConfigError](err); ok {
		return answer.ExitUsage
	}
	code := answer.Code(err)
	if code != answer.ExitUnreachable && isOfAnother(err) {
		return answer.ExitRefused
	}
	return code
}

// isOfAnother reports whether err says that a code was not for this relay: what came for it is another one's
// certificate, or a device's. Both are what somebody mistyped or mixed up, which a retry does not heal.
func isOfAnother(err error) bool {
	reason := transport.ReasonOf(err)
	return reason == transport.WrongKind || reason == transport.WrongName
}

// Advice says what to do about an error of Init or Enroll.
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
	case transport.WrongRoot, transport.TLSIntercepted:
		return "compare --root or --pin with what hawser-server init printed"
	}
	if answer.Code(err) == answer.ExitUnreachable {
		return "compare --access with where hawser-server run says that it is ready, and see whether a firewall is between"
	}
	return answer.Advice(err)
}
