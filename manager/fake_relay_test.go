package manager

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing/synctest"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/session"
	"hawser/transport/wire"
)

// openSession offers a session to both ends and starts the Runtime's.
func (f *fake) openSession(w http.ResponseWriter, r *http.Request) {
	f.openSessionWith(f.gatewayTLS, f.chain, w, r)
}

// openSessionWith offers a session with the holder of a certificate and a chain, while it is always the gateway that comes.
func (f *fake) openSessionWith(peer tls.Certificate, chain []string, w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.sessions++
	id := fmt.Sprintf("s%d", f.sessions)
	f.answers["DELETE /sessions/"+id] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	f.answers["POST /sessions/"+id+"/move"] = func(w http.ResponseWriter, r *http.Request) { f.moveSession(id, w, r) }
	offer := wire.Offer{Session: id, Role: wire.RoleManager, User: "admin",
		Peer:        identity.DeviceName("default", f.uid).String(),
		PeerSPKI:    identity.CertSPKI(peer.Leaf),
		Permissions: []string{"tcp", "ping"}, Statements: chain}
	f.mu.Unlock()
	f.offer(offer, w, r)
}

// moveSession offers the next epoch, at the other relay, to whoever lost the present one.
func (f *fake) moveSession(id string, w http.ResponseWriter, r *http.Request) {
	var in struct {
		Epoch  int
		Reason transport.Reason
	}
	json.NewDecoder(r.Body).Decode(&in)
	f.mu.Lock()
	offer := f.offered[id]
	if in.Epoch == offer.Epoch && in.Reason != "" && offer.Relay.Name == relayNumber(f.relay).Name {
		f.relay = 1 - f.relay
	}
	f.mu.Unlock()
	if in.Epoch != offer.Epoch {
		problemAnswer(400, "bad-request", "not the epoch that was lost")(w, r)
		return
	}
	f.offer(offer, w, r)
}

// offer gives both ends the next epoch of a session at the present relay, and starts the Runtime's end.
func (f *fake) offer(offer wire.Offer, w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	offer.Epoch++
	offer.Relay, offer.Grant = relayNumber(f.relay), fmt.Sprintf("%s/%d", offer.Session, offer.Epoch)
	f.offered[offer.Session] = offer
	f.mu.Unlock()
	other := offer
	other.Role, other.Peer = wire.RoleRuntime, identity.UserName("default", "admin").String()
	other.PeerSPKI = peer(r)
	f.running.Go(func() { f.runtime(other) })
	jsonAnswer(map[string]any{"offer": offer})(w, r)
}

// relayNumber is r1 for 0, r2 for 1.
func relayNumber(n int) wire.Relay {
	return wire.Relay{Name: fmt.Sprintf("r%d", n+1), Hosts: []string{[]netip.Addr{relayAddr, relayAddr2}[n].String()}, Ports: []transport.Port{443}}
}

// kill makes a relay's process die: its connections are reset, and new ones refused. revive starts it again.
func (f *fake) kill(relay netip.Addr) {
	f.net.Cut(clientAddr, relay)
	f.net.Cut(gatewayAddr, relay)
}

func (f *fake) revive(relay netip.Addr) {
	f.net.Heal(clientAddr, relay)
	f.net.Heal(gatewayAddr, relay)
}

// restart is kill and revive in one instant, in which nobody can try the relay in vain. It returns when the loss is
// noticed: a tool that comes before is given the dead session.
func (f *fake) restart(relay int) {
	f.relays[relay].Cut()
	synctest.Wait()
}

// newest is the Runtime's end of the newest session.
func (f *fake) newest() *session.Session {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.live
}

// runtime is the gateway's end of one session. Port 1 is against its policy, port 2 is closed, port 4 says bye
// and then only listens, and every other address and the ping service send back what they get.
func (f *fake) runtime(offer wire.Offer) {
	d := &transport.Dialer{DialContext: f.gateway.DialContext, Certificate: func() *tls.Certificate { return &f.gatewayTLS }}
	f.mu.Lock()
	hello, admit := f.hello, f.admit
	f.mu.Unlock()
	s, err := session.Join(f.ctx, session.Config{
		Dialer: d, Certificate: f.gatewayTLS, Roots: f.pki.Roots, Offer: offer, Hello: hello, Hold: admit != nil})
	if err != nil {
		return
	}
	defer s.Close()
	f.mu.Lock()
	f.live = s
	f.mu.Unlock()
	if admit != nil {
		admit(s)
	}
	for {
		stream, err := s.Accept(f.ctx)
		if err != nil {
			return
		}
		f.running.Go(func() { echo(stream) })
	}
}

func echo(stream *mux.Stream) {
	switch header := stream.Asked(); {
	case strings.HasSuffix(header.Target, ":1"):
		stream.Refuse(transport.Policy, "not allowed here")
	case strings.HasSuffix(header.Target, ":2"):
		stream.Refuse(transport.Refused, "")
	case strings.HasSuffix(header.Target, ":4"):
		stream.Grant()
		io.WriteString(stream, "bye")
		stream.CloseWrite()
		io.Copy(io.Discard, stream)
		stream.Close()
	default:
		stream.Grant()
		io.Copy(stream, stream)
		stream.CloseWrite()
		stream.Close()
	}
}
