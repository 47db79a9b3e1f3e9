package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"hawser/internal/memnet"
)

// Whatever stands on the way, a search ends with all of its goroutines, tries nothing twice, and finds a way that is open.
func TestSearchesByChance(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { searchByChance(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func searchByChance(t *testing.T, r *rand.Rand) {
	s := newSite(t)
	s.net.SetLatency([]time.Duration{0, 0, 10 * ms, 400 * ms}[r.IntN(4)])
	verdicts, open := map[uint16]memnet.Verdict{}, map[Port]bool{}
	for _, p := range DefaultPorts() {
		h := &hole{s: s, reset: r.IntN(2) == 0}
		switch r.IntN(8) {
		case 0:
			verdicts[uint16(p)] = memnet.Drop
			s.serveTLS(uint16(p)) // open behind a proxy all the same
			continue
		case 1:
			verdicts[uint16(p)] = memnet.Reject
			continue
		case 2:
			s.serve(uint16(p), silent)
			continue
		case 3:
			s.serve(uint16(p), say("HTTP/1.1 302 Found\r\n\r\n"))
			continue
		case 4:
			s.serve(uint16(p), tlsHandler(serverTLS(foreign())))
			continue
		case 5:
			s.serve(uint16(p), func(net.Conn) {})
			continue
		case 6:
			h.serve(uint16(p), s.tls())
		default:
			s.serveTLS(uint16(p))
		}
		open[p] = true
	}
	s.net.Firewall(func(from netip.Addr, to netip.AddrPort) memnet.Verdict {
		if from == clientAddr && to.Addr() == serverAddr {
			return verdicts[to.Port()]
		}
		return memnet.Pass
	})
	if r.IntN(3) > 0 {
		p := s.proxy(proxyAddr)
		p.answer = []string{"", "", "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n", "HTTP/1.1 403 No\r\n\r\n", "220 smtp\r\n", "HTTP/1.1 200 ok\r\nx: "}[r.IntN(6)]
		s.through(r.IntN(2) == 0, theProxy, "http://198.51.100.77:3128", "socks5://proxy.example")
	}
	s.d.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
		switch host {
		case "nobody.example":
			return nil, &net.DNSError{IsNotFound: true}
		case "late.example", "proxy.example":
			select {
			case <-time.After(20 * time.Second):
			case <-ctx.Done():
			}
			return nil, errors.Join(&net.DNSError{}, ctx.Err())
		}
		return []netip.Addr{serverAddr}, nil
	}
	for _, h := range []string{"late.example", "nobody.example", "second.example"} {
		if r.IntN(3) == 0 {
			s.target.Hosts = append(s.target.Hosts, h)
		}
	}
	var worked []Candidate
	s.d.Good = func(c Candidate) { worked = append([]Candidate{c}, worked...) }
	s.d.LastGood = func(host string) (list []Candidate) {
		for _, c := range worked {
			if c.Host == host {
				list = append(list, c)
			}
		}
		return list
	}
	for range 3 {
		begin := time.Now()
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		patient := r.IntN(3) > 0
		if !patient {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(6000))*ms)
		}
		conn, err := s.d.Dial(ctx, s.target)
		cancel()
		if err == nil {
			if conn.Handshake() != nil {
				t.Error("a connection that is closed")
			}
			io.WriteString(conn, "x")
			conn.Close()
		}
		failed, _ := errors.AsType[*DialError](err)
		if err != nil && patient && len(open) > 0 {
			t.Errorf("open are %v: %v", open, err)
		}
		if took := time.Since(begin); took > 4*time.Minute {
			t.Errorf("it took %v", took)
		}
		if failed != nil {
			seen := map[Candidate]bool{}
			for _, a := range failed.Attempts {
				if seen[a.Candidate] && a.Candidate.Port() != 0 {
					t.Errorf("tried twice: %+v", a.Candidate)
				}
				seen[a.Candidate] = true
			}
		}
		time.Sleep(time.Duration(r.IntN(100)) * time.Minute / 10)
	}
}
