package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"time"

	"hawser/transport"
)

const (
	requestTimeout = 60 * time.Second // with the search for a way
	maxAnswerBytes = 4 << 20
	maxHeaderBytes = 64 << 10
	maxProblemText = 200 // characters
	maxRetryAfter  = time.Hour
)

// call sends one request of access §6 over a connection of its own and decodes the answer into out, if it is not nil.
// A connection for each keeps it plain: commands make few requests, and none is older than the certificate it shows. op
// says in errors what was to be done. Errors carry a reason, or the code of the server's problem document.
func call(ctx context.Context, dial func(context.Context) (*transport.Conn, error), op, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	defer conn.NetConn().Close()
	if err := roundTrip(ctx, conn, method, path, in, out); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fail(transport.ReasonOf(err), op, err)
	}
	return nil
}

// roundTrip does the HTTP over a connection that is already authenticated, so that everything that http could decide about
// servers, proxies and certificates has been decided by transport.
func roundTrip(ctx context.Context, conn *transport.Conn, method, path string, in, out any) error {
	req, err := newRequest(ctx, conn, method, path, in)
	if err != nil {
		return err
	}
	// RoundTrip and not a Client: a redirect is not followed, there is nobody else to trust.
	one := &http.Transport{
		DialTLSContext:         func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
	resp, err := one.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	switch {
	case err != nil:
		return err
	case len(body) > maxAnswerBytes:
		return fail(transport.Protocol, "read answer", fmt.Errorf("over %d bytes", maxAnswerBytes))
	case resp.StatusCode >= 300:
		return parseProblem(resp.StatusCode, resp.Header, body)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fail(transport.Protocol, "read answer", err)
	}
	return nil
}

// newRequest puts a request together. Path is below /api/v1 and escaped.
func newRequest(ctx context.Context, conn *transport.Conn, method, path string, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	host := conn.Candidate.Addr.String() // the name of a server is in its certificate; this only has to be some host
	req, err := http.NewRequestWithContext(ctx, method, "https://"+host+"/api/v1"+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// parseProblem reads a problem document (RFC 9457). What is none becomes reason protocol with the status: whoever
// answered there is not our API.
func parseProblem(status int, header http.Header, body []byte) *problem {
	var doc struct {
		Code   string `json:"code"`
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	err := json.Unmarshal(body, &doc)
	if err == nil && (kind != "application/problem+json" || !isWord(doc.Code)) {
		err = errors.New("not a problem document")
	}
	if err != nil {
		return &problem{code: transport.Protocol, text: fmt.Sprintf("status %d without a readable reason", status)}
	}
	text := doc.Detail
	if text == "" {
		text = doc.Title
	}
	if text == "" {
		text = "status " + strconv.Itoa(status)
	}
	return &problem{code: transport.Reason(doc.Code), text: cut(text, maxProblemText), retryAfter: parseRetryAfter(header.Get("Retry-After"))}
}

// parseRetryAfter reads the header's form in seconds (RFC 9110 §10.2.3), bounded as wire §2.3 says.
func parseRetryAfter(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxRetryAfter)
}
