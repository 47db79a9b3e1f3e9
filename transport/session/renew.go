package session

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/mux"
)

// Until is when the certificate ends that the peer has shown at the begin of the line.
func (s *Session) Until() time.Time { return endOf(s.conn.ConnectionState().PeerCertificates) }

// endOf is when a chain ends: with the first of its certificates.
func endOf(chain []*x509.Certificate) (end time.Time) {
	for i, cert := range chain {
		if i == 0 || cert.NotAfter.Before(end) {
			end = cert.NotAfter
		}
	}
	return end
}

// Renew shows the peer another certificate of the same key, and the statements of this end (session §3.5). It does not block.
func (s *Session) Renew(chain []*x509.Certificate, statements []string) error {
	return s.Mux.Renew(mux.Chain{Certificates: string(identity.MarshalChain(chain)), Statements: statements})
}

// Renewed returns what the peer has shown anew: the end of its certificate, which is verified as that of the handshake was,
// and its statements, which are not judged. It blocks until something has come, the session is over, or ctx ends. Reason
// expired: the certificate is over already; wrong-peer: it is not one of this peer.
func (s *Session) Renewed(ctx context.Context) (until time.Time, statements []string, err error) {
	shown, err := s.Mux.Renewed(ctx)
	if err != nil {
		return until, nil, err
	}
	chain, err := identity.ParseChain([]byte(shown.Certificates))
	if err == nil {
		err = s.config.verifyChain(chain)
	}
	if err != nil {
		reason := transport.WrongPeer
		if transport.ReasonOf(err) == transport.Expired {
			reason = transport.Expired
		}
		return until, nil, &NotPeer{&transport.Error{Reason: reason, Op: "verify the renewed certificate of " + s.config.Offer.Peer, Err: err}}
	}
	return endOf(chain), shown.Statements, nil
}

// NotPeer is the error of a certificate that was shown anew and is not one of the peer, or is over.
type NotPeer struct{ error }

// Unwrap returns the error with its reason.
func (e *NotPeer) Unwrap() error { return e.error }

// verifyChain accepts only the peer of the offer: its name under our roots, now, and its key.
func (c Config) verifyChain(chain []*x509.Certificate) error {
	want, err := identity.ParseName(c.Offer.Peer)
	if err != nil {
		return err
	}
	now := c.Now
	if now == nil {
		now = time.Now
	}
	// Who begins later than this clock says comes in: its time may be what a stolen server has stopped, and he may bring the
	// list that tells it better. A certificate that is dated ahead gains nothing by it: it ends all the same.
	at := now()
	for _, cert := range chain {
		if cert.NotBefore.After(at) {
			at = cert.NotBefore
		}
	}
	peer, err := transport.VerifyPeer(chain, c.Roots, at, want)
	if err == nil && peer.SPKI != c.Offer.PeerSPKI {
		err = errors.New("it has another key than the offer says")
	}
	return err
}
