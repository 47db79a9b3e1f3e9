package access

import (
	"net/http"
	"strconv"
	"time"

	"hawser/transport"
	"hawser/transport/wire"
)

// problem is a problem document (RFC 9457) with our stable code (access §6).
type problem struct {
	Type   string           `json:"type"`
	Title  string           `json:"title"`
	Status int              `json:"status"`
	Detail string           `json:"detail"`
	Code   transport.Reason `json:"code"`
}

func writeProblem(w http.ResponseWriter, r *wire.Refusal) {
	if r.RetryAfter > 0 {
		seconds := int64((r.RetryAfter + time.Second - 1) / time.Second)
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	status := statusOf(r.Reason)
	writeJSON(w, status, "application/problem+json", problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status,
		Detail: printable(r.Text), Code: r.Reason,
	})
}

// statusOf maps codes to HTTP. Clients act on the code; the status is for what
// lies between.
func statusOf(code transport.Reason) int {
	switch code {
	case codeBadRequest, transport.BadCSR:
		return http.StatusBadRequest
	case codeNotLoggedIn, transport.Expired, transport.WrongRoot, transport.BadCertificate:
		return http.StatusUnauthorized
	case transport.BadCode, transport.Revoked, transport.WrongKind, transport.WrongKey, transport.Policy:
		return http.StatusForbidden
	case codeNotFound, transport.NoDevice:
		return http.StatusNotFound
	case codeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case codeTooLarge:
		return http.StatusRequestEntityTooLarge
	case transport.Busy:
		return http.StatusTooManyRequests
	case transport.NoRelay, transport.ClockWrong:
		return http.StatusServiceUnavailable
	case transport.Internal:
		return http.StatusInternalServerError
	}
	return http.StatusConflict // name-taken, offline, and what a device has refused
}
