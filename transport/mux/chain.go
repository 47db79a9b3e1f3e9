package mux

import (
	"context"
	"fmt"

	"hawser/transport"
)

// maxChains is how many chains an end may send on one line (session §6). An honest Manager renews every 8 h.
const maxChains = 32

// Chain is what an end shows anew while a line is up (session §3.5): both members are whole.
type Chain struct {
	Certificates string   // PEM
	Statements   []string // as in Hello
}

// Renew shows the peer another certificate of the same key, and the statements of this end. It does not block. What is longer
// than the peer would take has reason protocol, and nothing of it is sent.
func (m *Mux) Renew(c Chain) error {
	p := chainPayload{Chain: c.Certificates, Statements: c.Statements}
	payload := p.encode()
	_, err := parseChain(payload)
	if most, _ := limitOf(typeChain); err == nil && len(payload) > most {
		err = fmt.Errorf("%d bytes do not fit into a frame", len(payload))
	}
	if err != nil {
		return &transport.Error{Reason: transport.Protocol, Op: "show certificate", Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.err != nil:
		return m.err
	case m.out.chains >= maxChains:
		return &transport.Error{Reason: transport.Protocol, Op: "show certificate", Err: fmt.Errorf("%d were shown on this line", maxChains)}
	}
	m.out.chains++
	m.sayLocked(typeChain, 0, payload)
	return nil
}

// Renewed returns what the other end has shown anew, unverified: the newest that was not returned yet. It blocks until one
// has come, the session is over, or ctx ends.
func (m *Mux) Renewed(ctx context.Context) (Chain, error) {
	select {
	case c := <-m.chains:
		return c, nil
	case <-m.done:
		return Chain{}, m.Err()
	case <-ctx.Done():
		return Chain{}, ctx.Err()
	}
}

// chainLocked keeps the newest chain: a peer cannot make this end keep more, whoever takes them or not.
func (m *Mux) chainLocked(payload []byte) error {
	p, err := parseChain(payload)
	if err != nil {
		return err
	}
	if m.peer.chains++; m.peer.chains > maxChains {
		return violated("more than %d chains", maxChains)
	}
	select {
	case <-m.chains:
	default:
	}
	m.chains <- Chain{Certificates: p.Chain, Statements: p.Statements} // there is room: nobody else puts one in
	return nil
}

// chainPayload is that of chain.
type chainPayload struct {
	Chain      string   `json:"chain"` // PEM; whoever verifies it parses it
	Statements []string `json:"statements"`
}

func (p *chainPayload) encode() []byte { return encodeJSON(p) }

// parseChain parses and bounds a chain.
func parseChain(payload []byte) (chainPayload, error) {
	var p chainPayload
	if err := decodeJSON(typeChain, payload, &p); err != nil {
		return chainPayload{}, err
	}
	if p.Chain == "" {
		return chainPayload{}, fmt.Errorf("%w: a chain without certificates", ErrFrame)
	}
	return p, checkStatements(p.Statements)
}

// checkStatements bounds the statements of one frame.
func checkStatements(statements []string) error {
	size := 0
	for _, s := range statements {
		size += len(s)
	}
	if len(statements) > maxStatements || size > maxStatementBytes {
		return fmt.Errorf("%w: %d statements of %d bytes", ErrFrame, len(statements), size)
	}
	return nil
}
