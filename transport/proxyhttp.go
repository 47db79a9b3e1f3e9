package transport

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
)

// askHTTP asks an HTTP proxy by CONNECT. With a name and password it shows them at
// once, by Basic: there is nothing else that it could do with them. By hand, because net/http would double the agent
// (docs/decisions/0015).
func askHTTP(conn io.ReadWriter, l *login, host string, port Port) error {
	if _, err := conn.Write(connectRequest(l, host, port)); err != nil {
		return err
	}
	head, err := readHead(conn)
	if err != nil {
		return err
	}
	answer, err := parseConnectAnswer(head)
	if err != nil {
		return &Error{Reason: NotTLS, Err: err}
	}
	return answer.judge(l != nil)
}

// connectRequest is the request of RFC 9110 §9.3.6. Host repeats the authority, as RFC 9112 §3.2 wants of every
// request. There is no User-Agent: nothing needs to know.
func connectRequest(l *login, host string, port Port) []byte {
	authority := net.JoinHostPort(strings.TrimSuffix(host, "."), strconv.Itoa(int(port)))
	b := fmt.Appendf(nil, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", authority, authority)
	if l != nil {
		b = fmt.Appendf(b, "Proxy-Authorization: Basic %s\r\n", base64.StdEncoding.EncodeToString([]byte(l.user+":"+l.password)))
	}
	return append(b, "\r\n"...)
}

// readHead reads up to the empty line that ends the head of an answer, and no byte
// more: what follows is the server's. An answer of something else than HTTP ends it
// early.
func readHead(r io.Reader) ([]byte, error) {
	const start = "HTTP/1."
	var head []byte
	// Byte by byte: a buffer could take the server's first bytes with it, and a head is some hundred bytes, once a
	// dial.
	for one := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, one); err != nil {
			return nil, err
		}
		head = append(head, one[0])
		switch {
		case len(head) <= len(start) && !strings.HasPrefix(start, string(head)), len(head) > maxProxyAnswer:
			return head, nil // which is no head
		case bytes.HasSuffix(head, []byte("\r\n\r\n")), bytes.HasSuffix(head, []byte("\n\n")):
			return head, nil
		}
	}
}

// connectAnswer is what a proxy said to a CONNECT.
type connectAnswer struct {
	status  int
	phrase  string   // printable
	schemes []string // of Proxy-Authenticate, in lower case, each once
}

// parseConnectAnswer reads the head of an answer (RFC 9112 §4, §5). It is pure. Lines may end in LF alone (RFC 9112
// §2.2). Of the header only Proxy-Authenticate is of use; the rest may be anything.
func parseConnectAnswer(head []byte) (a connectAnswer, err error) {
	bad := errors.New("what answers is no HTTP proxy")
	if len(head) > maxProxyAnswer {
		return a, fmt.Errorf("an answer of more than %d KiB", maxProxyAnswer>>10)
	}
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(string(head), "\r\n", "\n"), "\n"), "\n")
	version, rest, _ := strings.Cut(lines[0], " ")
	code, phrase, _ := strings.Cut(rest, " ")
	if version != "HTTP/1.1" && version != "HTTP/1.0" || len(code) != 3 {
		return a, bad
	}
	if a.status, err = strconv.Atoi(code); err != nil || a.status < 100 {
		return connectAnswer{}, bad
	}
	a.phrase = printable(phrase)
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if ok && strings.EqualFold(name, "Proxy-Authenticate") {
			a.schemes = addSchemes(a.schemes, value)
		}
	}
	return a, nil
}

// knownSchemes are the ways to prove oneself to a proxy that are told apart: Basic is
// the one that we have.
var knownSchemes = []string{"Basic", "Digest", "NTLM", "Negotiate"}

// addSchemes finds the known schemes in a list of challenges (RFC 9110 §11.6.1). One is
// the first word of the value, or behind a comma; what stands in quotes is skipped.
func addSchemes(schemes []string, value string) []string {
	quoted := false
	words := strings.FieldsFunc(value, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ',' && !quoted
	})
	for _, w := range words {
		first, _, _ := strings.Cut(strings.TrimSpace(w), " ")
		for _, known := range knownSchemes {
			if strings.EqualFold(first, known) && !slices.Contains(schemes, known) {
				schemes = append(schemes, known)
			}
		}
	}
	return schemes
}

// judge turns an answer into an error, or nil when the way is open. It is pure.
func (a connectAnswer) judge(login bool) error {
	said := strings.TrimSpace(fmt.Sprintf("it says %d %s", a.status, a.phrase))
	switch {
	case a.status >= 200 && a.status < 300:
		return nil
	case a.status == 407:
		return &Error{Reason: ProxyAuth, Err: errors.New(a.wants(login))}
	// What answers a CONNECT by a redirect is the site's login page, in front of the proxy or in its place.
	case a.status >= 300 && a.status < 400 || a.status == 511: // RFC 6585 §6
		return &Error{Reason: CaptivePortal, Err: errors.New(said)}
	}
	return &Error{Reason: ProxyRefused, Err: errors.New(said)}
}

// wants says what a proxy that answers 407 is waiting for. It is for the person who may ask the site's IT, so it names
// the scheme: "let it take Basic" is what IT can do.
func (a connectAnswer) wants(login bool) string {
	switch {
	case slices.Contains(a.schemes, "Basic") && login:
		return "it does not take this name and password"
	case slices.Contains(a.schemes, "Basic"):
		return "it wants a name and password"
	case len(a.schemes) > 0:
		return "it wants " + strings.Join(a.schemes, " or ") + ", which is not supported: let it take Basic, or this device without a password"
	}
	return "it wants an authentication that is not supported"
}
