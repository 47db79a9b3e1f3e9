package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"hawser/transport"
)

// Profile is an infrastructure of somebody else whose ways can be checked
// before there is anything of ours: without enrolment, root or configuration.
type Profile struct {
	Name                string
	Access, Relays, Web []string // host names
	Ports               []transport.Port
}

// ProfileNamed returns a built-in profile. There is one, combivis: the names
// that the documentation of COMBIVIS connect asks a firewall to let through.
func ProfileNamed(name string) (Profile, bool) {
	return Profile{
		Name:   "combivis",
		Access: []string{"ccas1.keb.de", "ccas2.keb.de"},
		Relays: []string{"ubiquityrs1.asem.it", "ubiquityrs2.asem.it", "ubiquityrs3.asem.it", "ubiquityrs4.asem.it",
			"ubiquityrs5.asem.it", "ubiquityrs6.asem.it", "ubiquityrs7.asem.it"},
		Web:   []string{"combivisconnect.com", "webapi.combivisconnect.com", "help.combivisconnect.com"},
		Ports: transport.DefaultPorts(),
	}, name == "combivis"
}

func (p *Profile) hosts() []string { return slices.Concat(p.Access, p.Relays, p.Web) }

const (
	foreignTCP = 5 * time.Second // as transport's own (wire §8)
	foreignTLS = 4 * time.Second
)

// tryForeign tries a way to a server that is not ours. There is no root to
// verify it with and nothing to protect: nothing is sent but the handshake. So
// the way is open when TLS completes with whatever certificate, whose issuer is
// shown for a person to judge; also when the server, having shown its own,
// ends the handshake because it wants ours.
func tryForeign(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), to transport.Candidate) transport.Attempt {
	a := transport.Attempt{Candidate: to}
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	begin := time.Now()
	tcpCtx, cancel := context.WithTimeout(ctx, foreignTCP)
	defer cancel()
	conn, err := dial(tcpCtx, "tcp", to.Addr.String())
	if err != nil {
		a.Reason, a.Detail = transport.ReasonOf(err), err.Error()
		return a
	}
	defer conn.Close()
	a.RTT = max(time.Since(begin), 1) // TCP completed, however coarse the clock
	tlsCtx, cancel := context.WithTimeout(ctx, foreignTLS)
	defer cancel()
	heard := &opening{Conn: conn}
	shown, issuer, err := shakeHands(tlsCtx, heard, to.Host)
	a.Issuer, a.Took = issuer, time.Since(begin)
	if a.Reason = foreignReason(tlsCtx, shown, heard.first[:heard.n], err); a.Reason != "" {
		a.Detail = err.Error()
	}
	return a
}

// shakeHands completes a handshake, and says whether a certificate was shown
// and by whom it was issued. Servers of others may speak TLS 1.2 at most.
func shakeHands(ctx context.Context, conn net.Conn, host string) (shown bool, issuer string, err error) {
	config := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		SessionTicketsDisabled: true,
		InsecureSkipVerify:     true, // nothing is trusted, and nothing sent: see tryForeign
		VerifyConnection: func(cs tls.ConnectionState) error {
			if shown = len(cs.PeerCertificates) > 0; shown {
				issuer = cs.PeerCertificates[0].Issuer.String()
			}
			return nil
		},
	}
	if _, err := netip.ParseAddr(host); err != nil {
		config.ServerName = host
	}
	err = tls.Client(conn, config).HandshakeContext(ctx)
	return shown, issuer, err
}

// foreignReason names what ended a handshake; nothing where the way is open.
func foreignReason(ctx context.Context, shown bool, heard []byte, err error) transport.Reason {
	if err == nil {
		return ""
	}
	reason := transport.ReasonOf(err)
	_, notTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case notTLS && bytes.HasPrefix(heard, []byte("HTTP/")):
		if _, status, _ := bytes.Cut(heard, []byte(" ")); bytes.HasPrefix(status, []byte("3")) || bytes.HasPrefix(status, []byte("511")) {
			return transport.CaptivePortal
		}
		return transport.PlainHTTP
	case notTLS:
		return transport.NotTLS
	case shown && reason == transport.TLSRefused:
		return ""
	case ctx.Err() != nil:
		return transport.Timeout
	case reason == transport.Reset:
		return transport.ResetAfterHello
	case reason == transport.Internal:
		return transport.TLSRefused
	}
	return reason
}

// opening keeps the first bytes that a server sent: where they are not TLS
// they tell what stands there instead.
type opening struct {
	net.Conn
	first [16]byte
	n     int
}

func (o *opening) Read(b []byte) (int, error) {
	n, err := o.Conn.Read(b)
	o.n += copy(o.first[o.n:], b[:n])
	return n, err
}
