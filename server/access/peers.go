package access

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"hawser/identity"
	"hawser/internal/wait"
	"hawser/server/store"
	"hawser/transport"
)

// Bus carries messages between the nodes, the Access Servers on one database (access §9). A hint may be lost: every
// node reads the database each second anyway. An order may fail: then its sender acts as if the device were offline.
// Tests have a Bus in memory. Its methods may be called concurrently. Small on purpose: what must not be lost goes
// through the database, so a bus needs no queue and no acknowledgement.
type Bus interface {
	// Join makes this process a node: it receives hints and orders until leave, which waits for handlers that still
	// run.
	Join(node string, h BusHandler) (leave func(), err error)
	// Hint tells all other nodes to read the database now. It does not wait.
	Hint()
	// Request sends an order to one node and waits for its reply, until ctx ends. ErrNoNode: there is no such node now.
	// store.ErrAway: no reply came.
	Request(ctx context.Context, node string, order []byte) (reply []byte, err error)
}

// ErrNoNode says that there is no node of that name now.
var ErrNoNode = errors.New("no such node")

// BusHandler is what a node does with messages. Both must be set. Answer returns the reply as bytes and has no error:
// what went wrong is a reason in it.
type BusHandler struct {
	Hint   func()                                         // must not block
	Answer func(ctx context.Context, order []byte) []byte // called concurrently; ctx ends when the node leaves
}

const (
	pathHint     = "/node/v1/hint"
	pathOrder    = "/node/v1/order"
	hintTimeout  = 2 * time.Second
	peerDial     = time.Second // to one address of another node
	maxOrder     = 64 << 10
	peerIdle     = time.Minute
	orderTimeout = measureTimeout + orderGrace
)

// peers is the Bus over the network: HTTP/1.1 in hawser-node/1 (wire §1.2), on the ports that each node has for its
// clients, so that a firewall needs no further rule. The store's table nodes says who may take part: each end proves to
// the other that it is one of them. HTTP, since the nodes serve it to Managers anyway.
type peers struct {
	s      *Server
	client *http.Client
	hint   wait.Bell // sendHints has to send one

	mu      sync.Mutex // guards the rest, and running's Add
	handler *BusHandler
	life    context.Context
	running sync.WaitGroup
}

func newPeers(s *Server) *peers {
	p := &peers{s: s, hint: wait.NewBell()}
	// No proxy: nodes reach each other as clients reach them, and a proxy of the environment is for the way out.
	p.client = &http.Client{Transport: &http.Transport{
		DialTLSContext:  func(ctx context.Context, _, addr string) (net.Conn, error) { return p.dial(ctx, addr) },
		IdleConnTimeout: peerIdle,
	}}
	return p
}

// Join serves until leave. Leave waits for sendHints and for orders that run; new ones are refused from its beginning.
func (p *peers) Join(_ string, h BusHandler) (leave func(), err error) {
	life, end := context.WithCancel(context.Background())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handler, p.life = &h, life
	p.running.Go(func() { p.sendHints(life) })
	return func() {
		p.mu.Lock()
		p.handler = nil
		p.mu.Unlock()
		end()
		p.running.Wait()
		p.client.CloseIdleConnections()
	}, nil
}

// Hint wakes sendHints. Many hints at once become one.
func (p *peers) Hint() { p.hint.Ring() }

// sendHints waits for all nodes before the next hint: a node that does not answer gets one connection and not one a
// second.
func (p *peers) sendHints(ctx context.Context) {
	for {
		select {
		case <-p.hint:
		case <-ctx.Done():
			return
		}
		var sending sync.WaitGroup
		for _, node := range p.s.cluster.state.liveNodes() {
			sending.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, hintTimeout)
				defer cancel()
				p.post(ctx, node, pathHint, nil) // a hint that is lost only costs a second
			})
		}
		sending.Wait()
	}
}

// Request sends an order to a node that holds its lease.
func (p *peers) Request(ctx context.Context, node string, order []byte) ([]byte, error) {
	// By the lease and not by a connect: a node that died would cost the technician a time-out for each of its
	// addresses.
	if !slices.Contains(p.s.cluster.state.liveNodes(), node) {
		return nil, fmt.Errorf("ask %s: %w", node, ErrNoNode)
	}
	return p.post(ctx, node, pathOrder, order)
}

// The host of the URL is the node's name, so that net/http keeps a connection for each node and not for each address.
func (p *peers) post(ctx context.Context, node, path string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+node+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := p.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w: %w", node, store.ErrAway, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxOrder))
	if err != nil || response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s: %w: status %d, %v", node, store.ErrAway, response.StatusCode, err)
	}
	return answer, nil
}

// dial connects to a node at the first of its addresses that answers. addr is NODE:443, as net/http makes it of the
// URL.
func (p *peers) dial(ctx context.Context, addr string) (net.Conn, error) {
	name, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n := store.Node{Name: name}
	if err := p.s.store.View(ctx, func(tx *store.Tx) error { return tx.Get(&n) }); err != nil {
		return nil, err
	}
	own, err := p.s.Certificate()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{transport.ALPNNode}, Certificates: []tls.Certificate{*own},
		InsecureSkipVerify: true, // VerifyConnection verifies everything: our names are not DNS names
		VerifyConnection: func(cs tls.ConnectionState) error {
			return p.s.verifyNode(cs, n)
		},
	}
	var errs []error
	for _, host := range n.Hosts {
		for _, port := range n.Ports {
			ctx, cancel := context.WithTimeout(ctx, peerDial)
			// One after the other, 1 s each: the nodes' operator knows their addresses, so this is no search as that of
			// a client.
			conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
			cancel()
			if err == nil {
				return conn, nil
			}
			errs = append(errs, err)
		}
	}
	return nil, errors.Join(errs...)
}

// verifyNode checks that the other end of a connection is node n: an Access Server of that name, certified by the
// issuing CA that the table nodes names. A certificate of another node's CA would let one stolen issuing key speak for
// all.
func (s *Server) verifyNode(cs tls.ConnectionState, n store.Node) error {
	if cs.NegotiatedProtocol != transport.ALPNNode {
		return &transport.Error{Reason: transport.WrongProtocol, Op: "verify node " + n.Name}
	}
	peer, err := identity.Verify(cs.PeerCertificates, s.cfg.Roots, s.now(), identity.KindAccess)
	if err != nil {
		return fmt.Errorf("verify node %s: %w", n.Name, err)
	}
	if peer.Name != identity.AccessName(n.Name) || caOf(cs.PeerCertificates) != n.CA {
		return &transport.Error{Reason: transport.WrongName, Op: "verify node " + n.Name}
	}
	return nil
}

// caOf returns the key of the CA that certified a chain's leaf; identity.Verify has found it to be that.
func caOf(chain []*x509.Certificate) (ca identity.SPKI) {
	if len(chain) > 1 {
		ca = identity.CertSPKI(chain[1])
	}
	return ca
}

// ServeNode serves one accepted hawser-node/1 connection of another Access Server on the same store, until it or ctx
// ends, and closes it. TLS must have asked for a client certificate without verifying it.
func (s *Server) ServeNode(ctx context.Context, conn *tls.Conn) {
	defer conn.Close()
	ctx, cancel, ok := s.whenReady(ctx)
	defer cancel()
	if !ok {
		return
	}
	if err := s.authenticateNode(ctx, conn); err != nil {
		if s.badNodes.Allow(time.Now()) { // strangers can ask for this protocol too
			s.log.Warn("a connection of another Access Server is refused", "addr", conn.RemoteAddr(), "err", err)
		}
		return
	}
	serveHTTP(ctx, conn, true, http.HandlerFunc(s.answerNode))
}

// authenticateNode checks that the client of a connection is one of the nodes. The name comes from the certificate, and
// the table must have that name with the same CA: the root alone would let every Access Server that was ever certified
// take part.
func (s *Server) authenticateNode(ctx context.Context, conn *tls.Conn) error {
	cs := conn.ConnectionState()
	if len(cs.PeerCertificates) == 0 {
		return &transport.Error{Reason: transport.NotEnrolled, Op: "verify node"}
	}
	peer, err := identity.Verify(cs.PeerCertificates, s.cfg.Roots, s.now(), identity.KindAccess)
	if err != nil {
		return err
	}
	n := store.Node{Name: peer.Name.ID}
	if err := s.store.View(ctx, func(tx *store.Tx) error { return tx.Get(&n) }); err != nil {
		return err
	}
	return s.verifyNode(cs, n)
}

// answerNode serves one request of another node.
func (s *Server) answerNode(w http.ResponseWriter, r *http.Request) {
	p, ok := s.cluster.bus.(*peers)
	if !ok {
		http.NotFound(w, r)
		return
	}
	h, life, done := p.enter()
	if h == nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer done()
	switch {
	case r.Method != http.MethodPost:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case r.URL.Path == pathHint:
		h.Hint()
	case r.URL.Path == pathOrder:
		order, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOrder))
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithTimeout(life, orderTimeout)
		defer cancel()
		// With the life of the node and not of the request: an order that was begun is finished though its sender is
		// gone.
		w.Write(h.Answer(ctx, order))
	default:
		http.NotFound(w, r)
	}
}

// enter returns the handler, or nil if this node has left. The caller calls done, for which leave waits.
func (p *peers) enter() (h *BusHandler, life context.Context, done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.handler == nil {
		return nil, nil, nil
	}
	p.running.Add(1)
	return p.handler, p.life, p.running.Done
}
