// Package answer is how a program answers whoever ran it (docs/spec/cli.md): with an exit code, one line for an error,
// and JSON. Nothing that it writes can act on a terminal, whatever a peer has put into it.
package answer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"

	"hawser/identity"
	"hawser/transport"
)

// The exit codes of docs/spec/cli.md. Scripts branch on them, so that they never change and are the same in all three
// programs.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2 // of the command line or the configuration
	ExitNotEnrolled = 3 // or not logged in
	ExitRefused     = 4
	ExitUnreachable = 5
)

// UsageError is a command line or a configuration that cannot work.
type UsageError struct{ Err error }

// Error is the cause's text.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *UsageError) Unwrap() error { return e.Err }

// Usage makes a UsageError as fmt.Errorf makes an error.
func Usage(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Code is the exit code of a command that ended with err. Only an error that carries its reason counts as refused or
// unreachable: a system error may come from a file as well as from the network.
func Code(err error) int {
	if err == nil {
		return ExitDone
	}
	if _, ok := errors.AsType[*UsageError](err); ok {
		return ExitUsage
	}
	// Before the reasons: a search that was interrupted carries what it had found so far, and is not the server's fault.
	if errors.Is(err, context.Canceled) {
		return ExitFailed
	}
	if dial, ok := errors.AsType[*transport.DialError](err); ok {
		// A wrong pin, or a server that moved to another root: to try again changes nothing.
		if dial.Why() == transport.WrongRoot {
			return ExitRefused
		}
		return ExitUnreachable // also when somebody else answers there: the server itself was not reached
	}
	switch reasonOf(err).Class() {
	case transport.ClassUnknown:
		return ExitNotEnrolled
	case transport.ClassRefused:
		return ExitRefused
	case transport.ClassUnreachable:
		return ExitUnreachable
	}
	return ExitFailed
}

// reasonOf asks for the method: each package has its own types of errors, and none of them has to be known here.
func reasonOf(err error) transport.Reason {
	if why, ok := errors.AsType[interface {
		error
		Why() transport.Reason
	}](err); ok {
		return why.Why()
	}
	return ""
}

// Advice says what to do about err, in words that fit every program; it is empty when the error itself says it best.
// Each is something that the reader can do where he is; what only others can do names them.
func Advice(err error) string {
	switch reason := transport.ReasonOf(err); reason {
	case transport.BadCode:
		return "codes work once and for a limited time: make a new one"
	case transport.Busy:
		return "wait a minute and try again"
	case transport.Revoked:
		return "ask who runs the infrastructure"
	case transport.Policy:
		return "the device's owner does not allow it"
	case transport.Locked:
		return "somebody at the device has to turn its key switch"
	case transport.NoDevice:
		return "see hawser device list"
	case transport.Offline:
		return "check the device's power and network"
	case transport.NoRelay, transport.NoPeer:
		return "ask who runs the servers whether a relay is up, and try again"
	case transport.WrongRoot:
		return "compare --root or --pin with what hawser-server init printed: the server belongs to another infrastructure"
	case transport.TLSIntercepted:
		return "a proxy opens TLS on the way: ask the network's IT to exempt the server"
	case transport.Expired:
		return "the server's certificate is over, or the clock of this computer is wrong"
	case transport.ClockWrong:
		return "set the clock of this computer"
	case transport.ProxyAuth:
		return "give the proxy's name and password, or ask the network's IT to let this machine through without"
	case transport.ProxyRefused:
		return "ask the network's IT to let the proxy connect to the server"
	case transport.CaptivePortal:
		return "log in to the network first, in a browser"
	case transport.BadAddress:
		return "name the server by its IP address, or declare that its addresses are private: private_infrastructure: true in agent.yaml, hawser login --private"
	case transport.DNS:
		return "check the server's name, or give its address"
	default:
		if reason.Class() == transport.ClassUnreachable && Code(err) == ExitUnreachable {
			if dial, ok := errors.AsType[*transport.DialError](err); ok && dial.AllRefused() {
				return "is the server running there? A firewall mostly drops"
			}
			return "check the network and its firewall"
		}
	}
	return ""
}

// Line is err as one line for a person: what failed, on what, why, and what to do.
func Line(err error, advice string) string {
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	text := strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
	if advice != "" {
		text += "; " + advice
	}
	return Clean(text)
}

// Clean returns s with every character replaced by '?' that is not on the list of what may reach a terminal: printable
// ASCII, and the letters that display names may have (identity §1). So no escape, control, C1, bidi or combining character
// and no line end gets through, whoever said it.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= unicode.MaxASCII && ' ' <= r && r <= '~' || r > unicode.MaxASCII && identity.IsDisplayLetter(r) {
			return r
		}
		return '?'
	}, s)
}

// JSON writes v as one line of JSON in pure ASCII: encoding/json leaves DEL and the C1 and bidi controls as they are, on
// which terminals act.
func JSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	for _, r := range b.String() {
		switch {
		case r == '\n' || ' ' <= r && r <= '~':
			out.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(out, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(out, `\u%04x`, r)
		}
	}
	return out.Flush()
}
