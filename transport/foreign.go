package transport

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// TryForeign tries a way to a server of somebody else. There is no root to verify
// it with, and nothing is sent after the handshake. The way is open, and
// Attempt.Reason empty, when TLS completes with any certificate, or when the server
// has shown one and then ends the handshake because it wants ours. Attempt.Issuer
// names its issuer, for a person to judge. The connection is closed. It blocks as
// Try does.
func (d *Dialer) TryForeign(ctx context.Context, c Candidate) Attempt {
	begin := time.Now()
	a := Attempt{Candidate: c}
	tcp, err := d.reach(ctx, &a, d.alone())
	if err == nil {
		defer tcp.Close()
		ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
		defer cancel()
		a.Issuer, err = foreignHandshake(ctx, tcp, c)
	}
	a.Took = time.Since(begin)
	if err != nil {
		a.Reason, a.Detail, _ = classify(err, false)
	}
	return a
}

// foreignHandshake returns the issuer of the certificate that the server showed. It
// allows TLS 1.2, since servers of others may not have 1.3. No ALPN is offered, since nobody knows which the server
// has.
func foreignHandshake(ctx context.Context, tcp net.Conn, c Candidate) (issuer string, err error) {
	heard, shown := &prefixConn{Conn: tcp}, false
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
	shape(config, c)
	err = tls.Client(heard, config).HandshakeContext(ctx)
	if err == nil || shown && ReasonOf(err) == TLSRefused {
		return issuer, nil
	}
	return issuer, &handshakeError{err: err, heard: heard.first[:heard.n], timeout: ctx.Err() != nil}
}
