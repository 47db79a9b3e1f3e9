package transport

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/internal/memnet"
)

// hole is a path that loses each hello of full size, or resets its connection. It notes every hello.
type hole struct {
	s      *site
	reset  bool
	hellos []string // PORT full or PORT small, guarded by s.mu
}

// serve has a port behind the hole. What is small enough reaches handle.
func (h *hole) serve(port uint16, handle func(net.Conn)) {
	h.s.serve(port, func(c net.Conn) {
		const most = 1160
		first := make([]byte, 4096)
		n, err := c.Read(first)
		if err != nil {
			return
		}
		form := "small"
		if n > most {
			form = "full"
		}
		h.s.mu.Lock()
		h.hellos = append(h.hellos, fmt.Sprint(port, " ", form))
		h.s.mu.Unlock()
		switch {
		case n <= most:
			handle(&replayed{c, first[:n]})
		case !h.reset:
			silent(c)
		}
	})
}

// seen returns the hellos since the last call.
func (h *hole) seen() []string {
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	seen := h.hellos
	h.hellos = nil
	return seen
}

// want compares them in whatever order: several may be sent at one time.
func (h *hole) want(t *testing.T, want ...string) {
	t.Helper()
	got := h.seen()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("hellos %q, want %q", got, want)
	}
}

// replayed is a connection whose first bytes were read already.
type replayed struct {
	net.Conn
	first []byte
}

func (r *replayed) Read(b []byte) (int, error) {
	if len(r.first) == 0 {
		return r.Conn.Read(b)
	}
	n := copy(b, r.first)
	r.first = r.first[n:]
	return n, nil
}

func (s *site) tls() func(net.Conn) { return tlsHandler(serverTLS(good(s.pki, access))) }

func TestSilentHelloStartsTheSmallForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		h := &hole{s: s}
		for _, p := range []uint16{443, 5935} {
			h.serve(p, s.tls())
		}
		var told Candidate
		s.d.Good = func(c Candidate) { told = c }
		s.dial(443, slotTime)
		h.want(t, "443 full", "5935 full", "443 small")
		if !told.Small || told.Addr != addrPort(443) {
			t.Errorf("told of %+v, want the small form of 443", told)
		}
	})
}

func TestResetHelloStartsTheSmallFormAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.target.Ports = []Port{443}
		h := &hole{s: s, reset: true}
		h.serve(443, s.tls())
		s.dial(443, 0)
		h.want(t, "443 full", "443 small")
	})
}

// On a slow path an answer takes a round trip, and the full form is not given up before.
func TestGoodNetworkIsNotMadeSmall(t *testing.T) {
	for _, latency := range []time.Duration{0, 300 * ms, 1500 * ms} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.net.SetLatency(latency)
			s.target.Ports = []Port{443}
			s.serveTLS(443)
			s.d.Good = func(c Candidate) {
				if c.Small {
					t.Errorf("small with a latency of %v", latency)
				}
			}
			s.dial(443, 4*latency)
			if len(s.dialled) != 1 {
				t.Errorf("dialled %v", s.dialled)
			}
		})
	}
}

// Whatever came back from behind a small hello, it was the size that had kept it off.
func TestAnsweredSmallFormMakesTheSearchSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.net.SetLatency(10 * ms) // so that a hello is answered before the next but one
		h := &hole{s: s, reset: true}
		late := func(c net.Conn) { // not in the instant in which the next full form is reset: either may be heard first
			time.Sleep(5 * ms)
			tlsHandler(serverTLS(foreign()))(c)
		}
		h.serve(443, late)
		h.serve(5935, late)
		h.serve(80, s.tls())
		s.dial(80, 125*ms)
		h.want(t, "443 full", "443 small", "5935 full", "5935 small", "80 small")
	})
}

func TestFailedSmallFormGetsNoSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.target.Ports = []Port{443}
		h := &hole{s: s, reset: true}
		h.serve(443, func(net.Conn) {})
		if err := s.dial(0, 0); len(err.Attempts) != 2 || err.Attempts[0].Small || !err.Attempts[1].Small {
			t.Errorf("attempts %+v", err.Attempts)
		}
		h.want(t, "443 full", "443 small")
	})
}

// With two silent handshakes and four connects that hang there is no room but beside them.
func TestFirstSmallFormIsOutsideTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		h := &hole{s: s}
		h.serve(443, s.tls())
		h.serve(5935, silent)
		s.target.Ports = []Port{443, 5935, 80, 81, 82, 83}
		s.block(map[uint16]memnet.Verdict{80: memnet.Drop, 81: memnet.Drop, 82: memnet.Drop, 83: memnet.Drop})
		s.dial(443, slotTime)
		if last := s.dialled[len(s.dialled)-1]; len(s.dialled) != 7 || last.addr != "192.0.2.1:443" {
			t.Errorf("dialled %v", s.dialled)
		}
	})
}

func TestSmallFormIsRememberedForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.target.Ports = []Port{443}
		h := &hole{s: s}
		h.serve(443, tlsHandler(serverTLS(s.pki.Leaf(access, -time.Hour, 2*smallTime))))
		s.dial(443, slotTime)
		h.want(t, "443 full", "443 small")
		time.Sleep(smallTime - time.Second)
		s.dial(443, 0)
		s.target.Hosts = []string{"relay.example"} // small at once as well
		s.dial(443, 0)
		h.want(t, "443 small", "443 small")
		time.Sleep(2 * time.Second)
		s.dial(443, slotTime)
		h.want(t, "443 full", "443 small")
	})
}

func TestSmallFormThatACallerRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		h := &hole{s: s}
		h.serve(443, s.tls())
		s.d.OnlySmall = func() bool { return true }
		s.d.LastGood = func(string) []Candidate { return []Candidate{{Addr: addrPort(443), Small: true}} }
		s.dial(443, 0)
		h.want(t, "443 small")
	})
}

func TestTimeThatASmallFormCounts(t *testing.T) {
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for now, want := range map[time.Duration]bool{0: true, smallTime - 1: true, smallTime: false, 40 * smallTime: false, -time.Hour: true} {
		if got := SmallCounts(at, at.Add(now)); got != want {
			t.Errorf("after %v: %v", now, got)
		}
	}
	if SmallCounts(time.Time{}, at) {
		t.Error("it counts though there was none")
	}
}

// The hello of full size does not fit into one packet, the small one fits into any, and both ask for the same.
func TestHelloInBothForms(t *testing.T) {
	for _, c := range []struct {
		form        Candidate
		least, most int
		curves      int
	}{
		{Candidate{Host: "access.example"}, 1400, 4096, 2},
		{Candidate{Host: "access.example", Small: true}, 100, 512, 1},
		{Candidate{Host: strings.Repeat("a.", 120) + "example", Small: true}, 100, 800, 1},
	} {
		near, far := net.Pipe()
		config := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{ALPNAccess}, InsecureSkipVerify: true,
			VerifyConnection: func(tls.ConnectionState) error { return nil }}
		shape(config, c.form)
		go func() {
			tls.Client(near, config).Handshake() // ends when far is closed
			near.Close()
		}()
		first := make([]byte, 5)
		io.ReadFull(far, first)
		size := int(first[3])<<8 | int(first[4])
		rest := make([]byte, size)
		io.ReadFull(far, rest)
		var offered []tls.CurveID
		var name string
		server := tls.Server(&replayed{far, append(first, rest...)}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			offered, name = h.SupportedCurves, h.ServerName
			return nil, io.EOF
		}})
		server.Handshake()
		far.Close()
		if size += 5; size < c.least || size > c.most {
			t.Errorf("small %v: a hello of %d bytes, want %d to %d", c.form.Small, size, c.least, c.most)
		}
		if c.form.Small && !slices.Equal(offered, []tls.CurveID{tls.X25519}) || !c.form.Small && !slices.Contains(offered, tls.X25519MLKEM768) {
			t.Errorf("small %v: it offers %v", c.form.Small, offered)
		}
		if name != c.form.Host {
			t.Errorf("it asks for %q", name)
		}
	}
}

// What a search has to be small for are the full forms: that they failed says nothing about the small ones.
func TestFullFormThatFailedDoesNotHoldUpTheSmallOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		h := &hole{s: s, reset: true}
		h.serve(443, s.tls())
		s.serveTLS(5935)
		s.target.Ports = []Port{443}
		var worked Candidate
		s.d.Good = func(c Candidate) { worked = c }
		s.d.LastGood = func(string) []Candidate {
			if worked.Host == "" {
				return nil
			}
			return []Candidate{worked}
		}
		s.dial(443, 0)
		h.want(t, "443 full", "443 small")
		s.target.Ports = DefaultPorts()
		s.dial(443, 0)
		if len(s.dialled) != 1 {
			t.Errorf("dialled %v", s.dialled)
		}
	})
}

// In a small search a small candidate that failed is tried last, as a full one in a full search.
func TestSmallFormThatFailedRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.d.OnlySmall = func() bool { return true }
		s.block(map[uint16]memnet.Verdict{443: memnet.Drop})
		s.serveTLS(5935)
		s.target.Ports = []Port{443}
		s.dial(0, tcpTimeout)
		s.target.Ports = []Port{443, 5935}
		s.dial(5935, 0)
	})
}

// A Dialer that began after the small form was found ends with its caller's day, and not a day after its own first search.
func TestSearchThatWasToldToBeSmallFindsNothingOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.target.Ports = []Port{443}
		h := &hole{s: s}
		h.serve(443, tlsHandler(serverTLS(s.pki.Leaf(access, -time.Hour, 2*smallTime))))
		only := true
		s.d.OnlySmall = func() bool { return only }
		s.dial(443, 0)
		time.Sleep(time.Hour)
		only = false
		s.dial(443, slotTime)
		h.want(t, "443 small", "443 full", "443 small")
	})
}

// What fails on this machine before anything was sent tells nothing of the path.
func TestFailureOfThisMachineIsNoAnswer(t *testing.T) {
	if answered(Attempt{Reason: Internal}) {
		t.Error("internal counts as an answer")
	}
}
