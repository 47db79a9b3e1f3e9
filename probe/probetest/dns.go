// Package probetest has fakes of DNS and time servers for tests. They do what real servers refuse to do (mangle, stay
// silent, lie) at exactly known times, over a network in memory or any other.
package probetest

import (
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// Handler answers one question that came over network, udp or tcp. Writing nothing is silence.
type Handler func(network string, w dns.ResponseWriter, q *dns.Msg)

// ServeDNS answers with h on both networks until the end of the test.
func ServeDNS(t testing.TB, pc net.PacketConn, l net.Listener, h Handler) {
	for network, srv := range map[string]*dns.Server{"udp": {PacketConn: pc}, "tcp": {Listener: l}} {
		srv.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { h(network, w, q) })
		done := make(chan struct{})
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); srv.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { srv.Shutdown(); <-done })
	}
}

// Respond is the reply to q with those of the records that fit it, in zone file form; %s stands for the name asked.
func Respond(q *dns.Msg, records ...string) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	for _, text := range records {
		rr, err := dns.NewRR(strings.ReplaceAll(text, "%s", q.Question[0].Name))
		if err != nil {
			panic(err)
		}
		if t := rr.Header().Rrtype; t == q.Question[0].Qtype || t == dns.TypeCNAME {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

// Honest has both addresses for every name.
func Honest(_ string, w dns.ResponseWriter, q *dns.Msg) {
	w.WriteMsg(Respond(q, "%s 300 A 203.0.113.7", "%s 300 AAAA 2001:db8::7"))
}

// Silent never answers.
func Silent(string, dns.ResponseWriter, *dns.Msg) {}

// Says answers with records, as Respond takes them.
func Says(records ...string) Handler {
	return func(_ string, w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(Respond(q, records...)) }
}

// Code answers with an RCODE and nothing else.
func Code(rcode int) Handler {
	return func(_ string, w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(new(dns.Msg).SetRcode(q, rcode)) }
}

// Over does one thing over UDP and another over TCP.
func Over(udp, tcp Handler) Handler {
	return func(network string, w dns.ResponseWriter, q *dns.Msg) {
		if network == "udp" {
			udp(network, w, q)
		} else {
			tcp(network, w, q)
		}
	}
}

// Truncate answers that the answer is too long.
func Truncate(_ string, w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.Truncated = true
	w.WriteMsg(m)
}

// LowerCase sends the question back in small letters.
func LowerCase(h Handler) Handler {
	return func(network string, w dns.ResponseWriter, q *dns.Msg) {
		q.Question[0].Name = strings.ToLower(q.Question[0].Name)
		h(network, w, q)
	}
}

// WithoutEDNS does one thing with questions without EDNS, and another with the others.
func WithoutEDNS(h, otherwise Handler) Handler {
	return func(network string, w dns.ResponseWriter, q *dns.Msg) {
		if q.IsEdns0() == nil {
			h(network, w, q)
		} else {
			otherwise(network, w, q)
		}
	}
}
