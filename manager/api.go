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
	"sync/atomic"
	"time"

	"hawser/transport"
	"hawser/transport/api"
)

const (
	// The server answers within 30 s (docs/tests.md, S-two); the rest is for the search of a way out.
	requestTimeout = 60 * time.Second // includes the dial
	// A page of 1000 devices with hints of the largest size has to fit; a server that sends more is cut off and not
	// stored.
	maxAnswerBytes = 4 << 20
	maxHeaderBytes = 64 << 10
	maxProblemText = 200 // characters
	maxRetryAfter  = time.Hour
)

// call sends one request of access §6 over a connection of its own and decodes the answer into out, if it is not nil.
// One connection for each request is simple, since commands make few, and none outlives the certificate that it shows. op
// names the operation in errors. Errors carry a reason, or the code of the server's problem document.
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
	l := newLine(conn, false)
	defer l.close()
	if err := l.roundTrip(ctx, method, path, in, out); err != nil {
		// A connection that the end of ctx has closed gives an error of the socket, which would send the user looking
		// for a firewall.
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fail(transport.ReasonOf(err), op, err)
	}
	return nil
}

// line does HTTP over one connection that transport has authenticated: net/http decides nothing about servers, proxies and
// certificates. It is for one goroutine, which closes it.
//
// A line that is not kept is for one request.
type line struct {
	conn  *transport.Conn
	http  *http.Transport
	began time.Time
}

func newLine(conn *transport.Conn, keep bool) *line {
	var taken atomic.Bool
	// Without compression: an answer could unpack to far more than what was sent.
	return &line{conn, &http.Transport{
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			if taken.Swap(true) {
				return nil, &transport.Error{Reason: transport.LinkLost, Op: "use the connection again"}
			}
			return conn, nil
		},
		DisableKeepAlives:      !keep,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}, time.Now()}
}

func (l *line) close() {
	l.conn.NetConn().Close()
	l.http.CloseIdleConnections()
}

// roundTrip makes one request, which waits for the one before it.
func (l *line) roundTrip(ctx context.Context, method, path string, in, out any) error {
	req, err := newRequest(ctx, l.conn, method, path, in)
	if err != nil {
		return err
	}
	// RoundTrip and not a Client, which would follow redirects to a server that nobody has authenticated.
	resp, err := l.http.RoundTrip(req)
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
	// Redirects too: the API has none, so one comes from something in between.
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

// newRequest puts a request together. Path is below api.Prefix, and escaped.
func newRequest(ctx context.Context, conn *transport.Conn, method, path string, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	host := conn.Candidate.Addr.String() // any host will do: the certificate names the server
	if !conn.Candidate.Addr.IsValid() {
		host = net.JoinHostPort(conn.Candidate.Host, strconv.Itoa(int(conn.Candidate.Port())))
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+host+api.Prefix+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json, "+api.ProblemType)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// parseProblem reads a problem document (RFC 9457). Any other body becomes reason protocol with the status: it does not
// come from our API. Its code and text are a stranger's until both have been checked: a code becomes an exit code, and
// the text goes to a terminal.
func parseProblem(status int, header http.Header, body []byte) *problem {
	var doc api.Problem
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	err := json.Unmarshal(body, &doc)
	if err == nil && (kind != api.ProblemType || !isWord(string(doc.Code))) {
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
	return &problem{code: doc.Code, text: cut(text, maxProblemText), retryAfter: parseRetryAfter(header.Get("Retry-After"))}
}

// parseRetryAfter reads the header's form in seconds (RFC 9110 §10.2.3), bounded as wire §2.3 says.
func parseRetryAfter(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxRetryAfter)
}
