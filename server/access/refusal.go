package access

import (
	"context"
	"crypto"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// When a client may ask again: while the store is away, and while it is damaged, which a person has to repair.
const (
	awayRetry    = 5 * time.Second
	damagedRetry = time.Minute
)

// refuse returns the refusal that a client is told, in a frame or a problem document.
func refuse(reason transport.Reason, text string) error {
	return &wire.Refusal{Reason: reason, Text: text}
}

// busy says when to come back, so that a client which obeys is not refused twice.
func busy(wait time.Duration) error {
	return &wire.Refusal{Reason: transport.Busy, Text: "too many attempts", RetryAfter: wait}
}

// refusalOf returns what a client is told about err. An error inside the server is reason internal, without a text: its
// details are for the log only. Refusals come first: what a handler has decided counts, whatever error of the store is
// wrapped beside it.
func refusalOf(err error) *wire.Refusal {
	if r, ok := errors.AsType[*wire.Refusal](err); ok {
		return r
	}
	if errors.Is(err, wire.ErrFrame) {
		return &wire.Refusal{Reason: transport.Protocol, Text: err.Error()}
	}
	switch {
	case errors.Is(err, store.ErrAway):
		return &wire.Refusal{Reason: transport.Busy, Text: "the server's database is away", RetryAfter: awayRetry}
	case errors.Is(err, store.ErrFull):
		return &wire.Refusal{Reason: transport.Busy, Text: "the server's disk is full, or its database cannot be written", RetryAfter: awayRetry}
	case errors.Is(err, store.ErrMoved):
		return &wire.Refusal{Reason: transport.Busy, Text: "the server's store was moved: its operator has to start it anew", RetryAfter: awayRetry}
	case errors.Is(err, store.ErrDamaged):
		return &wire.Refusal{Reason: transport.Damaged, Text: "the server's records are damaged: its operator has to look", RetryAfter: damagedRetry}
	}
	return &wire.Refusal{Reason: transport.Internal}
}

// isInternal reports whether err is the fault of this server and belongs into its log.
func isInternal(err error) bool {
	return ofStore(err) || refusalOf(err).Reason == transport.Internal
}

// logFailure logs an error inside the server. A store that is away or was moved goes to level debug, because that was logged,
// and damage to level error once a minute: a thousand clients that ask again must not fill the disk.
func (s *Server) logFailure(what string, err error, args ...any) {
	level := slog.LevelError
	switch {
	case isAway(err), errors.Is(err, store.ErrMoved), errors.Is(err, store.ErrDamaged) && !s.damaged.Allow(time.Now()):
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, what, append(args, "err", err)...)
}

// isAway reports whether the store cannot work now but may do so later.
func isAway(err error) bool { return errors.Is(err, store.ErrAway) || errors.Is(err, store.ErrFull) }

// ofStore reports whether the store as a whole, or a part of it, cannot be used.
func ofStore(err error) bool {
	return isAway(err) || errors.Is(err, store.ErrMoved) || errors.Is(err, store.ErrDamaged)
}

// peerGone reports whether err only says that the peer has closed the connection or is silent. That is no news.
func peerGone(err error) bool {
	if ofStore(err) {
		return false // its cause may be a network error too, but one of the database
	}
	_, isNet := errors.AsType[net.Error](err)
	return err == nil || isNet || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}

// parseCSR returns the key of a CSR and ignores the rest: names come from the registry, never from the client (access
// §2).
func parseCSR(der []byte) (crypto.PublicKey, identity.SPKI, error) {
	pub, err := identity.ParseCSR(der)
	if err != nil {
		return nil, identity.SPKI{}, refuse(transport.BadCSR, string(identity.FaultOf(err)))
	}
	spki, err := identity.SPKIOf(pub)
	return pub, spki, err
}

// badCertificate refuses a client whose certificate does not prove who it is.
func badCertificate(err error) error {
	return refuse(transport.ReasonOf(err), "client certificate")
}

// writeProblem answers with a problem document (RFC 9457) that has our stable code (access §6).
func writeProblem(w http.ResponseWriter, r *wire.Refusal) {
	if r.RetryAfter > 0 {
		seconds := int64((r.RetryAfter + time.Second - 1) / time.Second)
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	problem := problemOf(r)
	writeJSON(w, problem.Status, api.ProblemType, problem)
}

// problemOf is a refusal as the API says it.
func problemOf(r *wire.Refusal) api.Problem {
	status := statusOf(r.Reason)
	return api.Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: store.Printable(r.Text), Code: r.Reason,
	}
}

// statusOf maps codes to HTTP. Our clients act on the code; the status is for proxies and for people with curl.
func statusOf(code transport.Reason) int {
	switch code {
	case api.BadRequest, transport.BadCSR:
		return http.StatusBadRequest
	case api.NotLoggedIn, transport.Expired, transport.WrongRoot, transport.BadCertificate:
		return http.StatusUnauthorized
	case transport.BadCode, transport.Revoked, transport.WrongKind, transport.WrongKey, transport.Policy,
		transport.NotStated:
		return http.StatusForbidden
	case api.NotFound, transport.NoDevice:
		return http.StatusNotFound
	case api.MethodNotAllowed:
		return http.StatusMethodNotAllowed
	case api.TooLarge:
		return http.StatusRequestEntityTooLarge
	case transport.Busy:
		return http.StatusTooManyRequests
	case transport.NoRelay, transport.ClockWrong, transport.Damaged:
		return http.StatusServiceUnavailable
	case transport.Internal:
		return http.StatusInternalServerError
	}
	return http.StatusConflict // name-taken, offline, and what a device has refused
}
