package relay

import (
	"context"
	"crypto"
	"crypto/x509"

	"hawser/identity"
	"hawser/internal/durable"
	"hawser/transport/control"
	"hawser/transport/wire"
)

// Enrolled says as what a relay has enrolled, and under which roots.
type Enrolled struct {
	Name  string
	Leaf  *x509.Certificate
	Roots *identity.Roots
}

// Enroll exchanges c.Code for an identity and stores it in c.Dir, together with
// the key that it makes there, for a Server to run with later. Of c it needs
// also Access; where Roots is nil, pin is the root's SPKI hash. It blocks until
// a server has answered, every way has failed, or ctx ends. Errors carry a
// transport.Reason: that of the search (*transport.DialError), or the server's
// refusal (*wire.Refusal). The key stays after an error, so that the same code
// can be given again, for the answer may only have been lost (access §2).
func Enroll(ctx context.Context, c Config, pin identity.SPKI) (Enrolled, error) {
	c = c.withDefaults()
	if err := durable.OpenDir(c.Dir); err != nil {
		return Enrolled{}, err
	}
	client := c.client()
	client.Pin = pin
	o, roots, err := home(c.Dir).enroll(ctx, client, c.Code, c.Name)
	if err != nil {
		return Enrolled{}, err
	}
	return Enrolled{o.name.ID, o.certificate.Leaf, roots}, nil
}

// enroll exchanges the activation code for an identity (wire §4.1) and stores it.
func (h home) enroll(ctx context.Context, client *control.Client, code identity.Code, name string) (*own, *identity.Roots, error) {
	key, err := h.key()
	if err != nil {
		return nil, nil, err
	}
	csr, err := identity.NewCSR(key)
	if err != nil {
		return nil, nil, err
	}
	conn, err := client.Connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	answer, err := conn.Enroll(ctx, wire.Enroll{Code: code.String(), CSR: csr})
	if err != nil {
		return nil, nil, err
	}
	o, err := h.take(answer, key, conn.Roots, name)
	return o, conn.Roots, err
}

// enroll gets the first identity and forgets the code. The identity is on the disk before the code goes: a power cut
// between leaves both, and load removes the code then.
func (s *Server) enroll(ctx context.Context, code identity.Code) error {
	o, _, err := s.home.enroll(ctx, s.client, code, s.config.Name)
	if err != nil {
		return err
	}
	s.adopt(o)
	return s.home.forgetCode()
}

// renew gets a new certificate for the same key (wire §4.2).
func (s *Server) renew(ctx context.Context) error {
	key := s.own.Load().certificate.PrivateKey.(crypto.Signer)
	csr, err := identity.NewCSR(key)
	if err != nil {
		return err
	}
	conn, err := s.client.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := conn.Renew(ctx, wire.Renew{CSR: csr})
	if err != nil {
		return err
	}
	o, err := s.home.take(answer, key, s.config.Roots, s.config.Name)
	if err != nil {
		return err
	}
	s.adopt(o)
	return nil
}
