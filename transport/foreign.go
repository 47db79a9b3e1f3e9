package transport

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"time"
)

// TryForeign tries a way to a server that is not ours. There is no root to
// verify it with and nothing to protect: nothing is sent but the handshake. So
// Attempt.Reason is empty, the way open, when TLS completes with whatever
// certificate, whose issuer is in Attempt.Issuer for a person to judge; also
// when the server, having shown its own, ends the handshake because it wants
// ours. The connection is closed. It blocks as Try does.
func (d *Dialer) TryForeign(ctx context.Context, c Candidate) Attempt {
	begin := time.Now()
	a := Attempt{Candidate: c}
	tcp, err := d.connectTCP(ctx, &a, 1)
	if err == nil {
		defer tcp.Close()
		ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
		defer cancel()
		a.Issuer, err = shakeHands(ctx, tcp, c.Host)
	}
	a.Took = time.Since(begin)
	if err != nil {
		a.Reason, a.Detail, _ = classify(err, false)
	}
	return a
}

// shakeHands returns who issued the certificate that the server showed.
// Servers of others may speak TLS 1.2 at most.
func shakeHands(ctx context.Context, tcp net.Conn, host string) (issuer string, err error) {
	heard, shown := &listener{Conn: tcp}, false
	config := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		SessionTicketsDisabled: true,
		InsecureSkipVerify:     true, // nothing is trusted, and nothing sent: see TryForeign
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
	err = tls.Client(heard, config).HandshakeContext(ctx)
	if err == nil || shown && ReasonOf(err) == TLSRefused {
		return issuer, nil
	}
	return issuer, &handshakeError{err: err, heard: heard.first[:heard.n], timeout: ctx.Err() != nil}
}
