package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/mux"
	"hawser/transport/session"
	"hawser/transport/wire"
)

const targetTimeout = 10 * time.Second // to reach a machine on the LAN side

// serveStream serves one stream to its end, or until ctx ends with the session (session §4). Three must agree: the
// permissions of the offer, the scope of the user by the owner's statement, and the gateway's own rules. It runs on a
// goroutine of the session, which waits for it. The stream is closed in any case.
func (a *Agent) serveStream(ctx context.Context, s *mux.Stream, r *running) {
	defer s.Close()
	header := s.Asked()
	if !slices.Contains(r.offer.Permissions, string(header.Service)) {
		s.Refuse(transport.Policy, byInfra+"it does not permit "+string(header.Service)+" in this session")
		return
	}
	if !sees(a.sessions.rights(r), r.owner) { // it may have been moved to another folder
		s.Refuse(transport.Policy, byOwner+"this device is not in the scope of "+r.user)
		return
	}
	switch header.Service {
	case wire.ServiceTCP:
		a.serveTCP(ctx, s, header.Target, r)
	// Bytes come back as they are: the Manager measures with what a tool's bytes go through.
	case wire.ServicePing:
		if s.Grant() == nil {
			io.Copy(s, s)
			s.CloseWrite()
		}
	default:
		s.Refuse(transport.Unsupported, "")
	}
}

// serveTCP connects a stream to a machine, if the user's scope has the target and the gateway's rules allow it.
func (a *Agent) serveTCP(ctx context.Context, s *mux.Stream, target string, r *running) {
	o := r.offer
	// No names: the gateway would ask a DNS that somebody else may control, and the policy is about addresses.
	addr, err := netip.ParseAddrPort(target)
	if err != nil {
		s.Refuse(transport.Protocol, "the target is not IP:PORT")
		return
	}
	refuse := func(reason transport.Reason, text, why string) {
		a.sayRefused(o, addr, reason, why)
		s.Refuse(reason, text)
	}
	if user := a.sessions.rights(r); !user.Reaches(identity.Reach{Service: string(wire.ServiceTCP), Addr: addr}) {
		refuse(transport.Policy, fmt.Sprintf("%s%s is not in the scope of %s", byOwner, addr, user.User), "it is not in the user's scope")
		return
	}
	policy := a.policy().asks(r.user, a.ruleTime())
	ok, why, until := policy.judge(addr)
	if !ok {
		refuse(transport.Policy, policy.refusal(addr), why)
		return
	}
	host := addr.Addr().Unmap()
	if most := a.config.Limits.of(host); !a.sessions.open.take(host, most) {
		text := fmt.Sprintf("the gateway has %d connections to %s: no more are allowed", most, host)
		refuse(transport.Busy, text, "limits")
		return
	}
	defer a.sessions.open.give(host)
	dialing, cancel := context.WithTimeout(ctx, targetTimeout)
	defer cancel()
	s.OnFail(cancel) // or who opens and resets would have any number of dials
	// dialOut and not idleOut: a session is not what being reachable costs.
	conn, err := a.dialOut(dialing, "tcp", addr.String())
	if err != nil {
		reason := reasonOfDial(err)
		refuse(reason, unreached(addr, reason, err), err.Error())
		return
	}
	if a.isItself(conn, host) {
		if ok, why := policy.Reached(addr); !ok {
			conn.Close() // nothing was said on it
			refuse(transport.Policy, policy.refusal(addr), why)
			return
		}
	}
	// Granted only now: until then a refusal can still say why.
	machine, ok := conn.(session.Half)
	if !ok || s.Grant() != nil {
		conn.Close()
		return
	}
	// A session may end when all of the Manager's bytes have come, which is no failure of the stream, and a machine may
	// never close its own direction.
	stop := context.AfterFunc(ctx, func() { machine.Close() })
	defer stop()
	defer a.sessions.closing.add(until, func() {
		a.log.Info("stream closed: its hours are over", "session", o.Session, "user", o.User, "addr", addr)
		s.Reset(transport.Policy)
		machine.Close()
	})()
	a.log.Info("stream open", "session", o.Session, "user", o.User, "addr", addr)
	entry := r.ledger.begin(s, addr.String(), a.clock.Now())
	session.Bridge(machine, s)
	r.ledger.end(entry, a.clock.Now())
}

// isItself reports whether a connection to a machine has not left the gateway. A look at the routes that fails says
// nothing: that the connection is from an address to itself is enough on most systems.
func (a *Agent) isItself(conn net.Conn, to netip.Addr) bool {
	if here, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil && here.Addr().Unmap() == to {
		return true
	}
	local, err := a.board.Local(to)
	return local && err == nil
}

// reasonOfDial is busy for a gateway that has no descriptor left: it works again when somebody has closed something.
func reasonOfDial(err error) transport.Reason {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return transport.Busy
	}
	return transport.ReasonOf(err)
}

// unreached says why a machine was not reached. What failed here, such as for lack of file descriptors, says nothing
// about the machine. Else the error's own text is not passed on: it may name interfaces and addresses of the site.
func unreached(addr netip.AddrPort, reason transport.Reason, err error) string {
	switch reason {
	case transport.Busy:
		return "the gateway has no file descriptors left for more connections: its owner can raise their limit"
	case transport.Internal:
		return fmt.Sprintf("the gateway could not try: %v", err)
	}
	return fmt.Sprintf("the device cannot reach %s", addr)
}

// refusal says to a technician what the rules say to a target, without what else is open here.
func (p Policy) refusal(target netip.AddrPort) string {
	text := byRules + fmt.Sprintf("they do not allow %s", target)
	for _, r := range p.Rules {
		if r.Terms != nil && r.Terms.Hours != nil && r.matches(target) && r.Terms.names(p.User) {
			return text + fmt.Sprintf(" now, but at %s UTC", strings.Join(texts(r.Terms.Hours), ", "))
		}
	}
	if slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Terms != nil && r.matches(target) }) {
		text += " to " + p.User
	}
	return text
}

// policy returns the owner's policy. It is made for each stream, because interfaces come and go. On an error nothing is
// on the LAN side, and only rules that name an address count: nothing is reached rather than too much.
func (a *Agent) policy() Policy { return NewPolicy(a.config.Allow, a.surroundings(looksFresh)) }
