package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
)

// These are errors of real sockets on loopback: what the kernel says, not what we think it says.

func TestKernelErrorsHaveReasons(t *testing.T) {
	past, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	resolver := net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("dead") }}
	_, dns := resolver.LookupNetIP(t.Context(), "ip", "access.example")
	for name, c := range map[string]struct {
		err  error
		want Reason
	}{
		"closed port":      {dialError(t, t.Context(), net.Dialer{}, closedPort(t)), Refused},
		"context":          {dialError(t, past, net.Dialer{}, closedPort(t)), Timeout},
		"foreign source":   {dialError(t, t.Context(), net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}}, closedPort(t)), Unreachable},
		"deadline":         {readError(t, func(here, _ *net.TCPConn) { here.SetDeadline(time.Unix(1, 0)) }), Timeout},
		"peer's reset":     {readError(t, func(_, there *net.TCPConn) { there.SetLinger(0); there.Close() }), Reset},
		"peer's close":     {readError(t, func(_, there *net.TCPConn) { there.Close() }), Reset},
		"our close":        {readError(t, func(here, _ *net.TCPConn) { here.Close() }), Reset},
		"name":             {dns, DNS},
		"our own deadline": {os.ErrDeadlineExceeded, Timeout},
		"cancelled":        {context.Canceled, Timeout},
		"something else":   {errors.New("something else"), Internal},
	} {
		if c.err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, err := range []error{c.err, &connectError{c.err}, fmt.Errorf("wrap: %w", c.err)} {
			if got := ReasonOf(err); got != c.want {
				t.Errorf("%s: %v is %s, want %s", name, err, got, c.want)
			}
		}
	}
}

func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func dialError(t *testing.T, ctx context.Context, d net.Dialer, address string) error {
	c, err := d.DialContext(ctx, "tcp4", address)
	if err == nil {
		c.Close()
	}
	return err
}

// readError breaks a connection and reads from it.
func readError(t *testing.T, spoil func(here, there *net.TCPConn)) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	spoil(here.(*net.TCPConn), there.(*net.TCPConn))
	_, err = here.Read(make([]byte, 1))
	return err
}

func TestErrorsOfIdentityHaveReasons(t *testing.T) {
	for fault, want := range map[identity.Fault]Reason{
		identity.FaultWrongRoot: WrongRoot, identity.FaultExpired: Expired, identity.FaultNotYetValid: ClockWrong,
		identity.FaultWrongKind: WrongKind, identity.FaultCSRName: BadCSR, identity.FaultBadCode: BadCode,
		identity.FaultWrongNonce: BadTime, identity.FaultWrongServer: BadTime, identity.FaultWrongUID: BadTime,
		identity.FaultWrongKey: WrongKey, identity.FaultBadChain: BadCertificate, identity.FaultBadSignature: BadCertificate,
		identity.FaultMalformed: BadCertificate, identity.FaultBadName: BadCertificate, identity.FaultRefused: BadCertificate,
	} {
		if got := ReasonOf(fmt.Errorf("wrap: %w", &identity.Error{Fault: fault})); got != want {
			t.Errorf("%s is %s, want %s", fault, got, want)
		}
	}
}

func TestOwnErrorsKeepTheirReason(t *testing.T) {
	inner := &Error{Reason: NoPeer, Err: io.EOF}
	outer := &Error{Reason: WrongPeer, Op: "join", Err: inner}
	if ReasonOf(nil) != "" || ReasonOf(inner) != NoPeer || ReasonOf(fmt.Errorf("x: %w", outer)) != WrongPeer || !errors.Is(outer, io.EOF) {
		t.Error("a reason was lost")
	}
	for err, want := range map[*Error]string{
		outer: "join: wrong-peer: no-peer: EOF", inner: "no-peer: EOF", {Reason: Busy}: "busy", {Reason: Busy, Op: "ask"}: "ask: busy",
	} {
		if err.Error() != want {
			t.Errorf("got %q, want %q", err.Error(), want)
		}
	}
}

func TestMostTellingReasonStandsForTheSearch(t *testing.T) {
	for _, c := range []struct {
		in   []Reason
		want Reason
	}{
		{nil, Timeout},
		{[]Reason{Timeout}, Timeout},
		{[]Reason{Timeout, Refused, DNS}, Refused},
		{[]Reason{Refused, CaptivePortal, PlainHTTP}, CaptivePortal},
		{[]Reason{PlainHTTP, Expired, Timeout}, Expired},
		{[]Reason{Expired, TLSIntercepted}, TLSIntercepted},
		{[]Reason{Internal, DNS}, DNS},
		{[]Reason{Internal}, Internal},
	} {
		e := &DialError{Hosts: []string{"h"}}
		for _, r := range c.in {
			e.Attempts = append(e.Attempts, Attempt{Reason: r})
		}
		if got := ReasonOf(e); got != c.want {
			t.Errorf("%v: got %s, want %s", c.in, got, c.want)
		}
		if e.Error() == "" {
			t.Error("an error without a text")
		}
	}
}

func TestZeroDialerUsesRealSockets(t *testing.T) {
	pki := identitytest.New(time.Now())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if c, err := l.Accept(); err == nil {
			tlsHandler(serverTLS(good(pki, access)))(c)
			c.Close()
		}
	}()
	conn, err := new(Dialer).Dial(t.Context(), Target{Hosts: []string{l.Addr().String()}, ALPN: ALPNAccess, Name: access, Roots: pki.Roots})
	if err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	l.Close()
	<-served
}
