package probe

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// allIDs is how often a forger must guess who knows all but the ID.
const allIDs = 1 << 16

// A forger who knows the port sends every ID, but cannot know the case.
func TestForgedAnswersAreNotAccepted(t *testing.T) {
	t.Attr("id", "D4")
	t.Attr("count", fmt.Sprintf("forged DNS answers to the known port=%d", 2*allIDs))
	bubble(t, func(r *rig) {
		r.server("192.0.2.53", func(network string, w dns.ResponseWriter, q *dns.Msg) {
			forged := forgery(q)
			for id := range allIDs {
				forged[0], forged[1] = byte(id>>8), byte(id)
				w.Write(forged)
				if id%500 == 0 {
					time.Sleep(time.Millisecond) // the reader's queue is bounded
				}
			}
			honest(network, w, q)
		})
		r.resolve("access.of.a.long.name.example", 132*time.Millisecond, addr1, addr2)
		if len(r.resolver.quirks) != 0 {
			t.Error("a forger talked the resolver out of mixed case")
		}
	})
}

// forgery is an answer to q with another address, by somebody who does not see
// its letter case.
func forgery(q *dns.Msg) []byte {
	lower := q.Copy()
	lower.Question[0].Name = strings.ToLower(lower.Question[0].Name)
	b, _ := respond(lower, "%s 300 A 198.51.100.66", "%s 300 AAAA 2001:db8::66").Pack()
	return b
}

// One who does not know the port sends to random ones from the server's own
// address, over real sockets. He who knows everything is believed: it is the
// guessing that protects.
func TestForgedAnswersToRandomPortsAreNotAccepted(t *testing.T) {
	t.Attr("id", "D4")
	t.Attr("count", fmt.Sprintf("forged DNS answers to random ports=%d", allIDs))
	for _, knows := range []bool{false, true} {
		server, questions := realServer(t, func(pc net.PacketConn, from netip.AddrPort, q *dns.Msg) {
			if knows {
				b, _ := respond(q, "%s 300 A 198.51.100.66").Pack()
				pc.WriteTo(b, net.UDPAddrFromAddrPort(from))
			}
			forged := forgery(q)
			for range allIDs {
				guess := rand.Uint64()
				forged[0], forged[1] = byte(guess>>8), byte(guess)
				// A send may be answered by "nobody there", which is no news.
				_, _ = pc.WriteTo(forged, net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Addr(), 1024|uint16(guess>>16))))
			}
			b, _ := respond(q, "%s 300 A 203.0.113.7").Pack()
			pc.WriteTo(b, net.UDPAddrFromAddrPort(from))
		})
		rep := new(Resolver).exchange(t.Context(), "udp", server, "ccas1.keb.de", typeA)
		<-questions
		want := addr1
		if knows {
			want = netip.MustParseAddr("198.51.100.66")
		}
		if !slices.Equal(rep.addrs, []netip.Addr{want}) {
			t.Errorf("forger knows everything: %v; got %+v, want %v", knows, rep, want)
		}
	}
}

// observed is what a forger would have to guess of one question.
type observed struct {
	id, port uint16
	name     string
}

// realServer answers on a loopback socket until the test ends.
func realServer(t *testing.T, answer func(pc net.PacketConn, from netip.AddrPort, q *dns.Msg)) (netip.AddrPort, <-chan observed) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	questions, done := make(chan observed, 1<<13), make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(buf[:n]) == nil {
				at := from.(*net.UDPAddr).AddrPort()
				questions <- observed{q.Id, at.Port(), q.Question[0].Name}
				answer(pc, at, q)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc.LocalAddr().(*net.UDPAddr).AddrPort(), questions
}

// What a forger has to guess, measured: how often two questions agree by chance
// in ID and in port, and how often each letter is a capital.
func TestAForgerHasThirtyBitsToGuess(t *testing.T) {
	t.Attr("id", "D4")
	const questions, least = 4096, 30.0
	server, seen := realServer(t, func(pc net.PacketConn, from netip.AddrPort, q *dns.Msg) {
		b, _ := respond(q, "%s 300 A 203.0.113.7").Pack()
		pc.WriteTo(b, net.UDPAddrFromAddrPort(from))
	})
	for _, name := range []string{"ccas1.keb.de", "ubiquityrs1.asem.it", "7.42"} { // the last has no letters
		var ids, ports []uint16
		capitals := make([]int, len(name))
		r := new(Resolver)
		for range questions {
			if rep := r.exchange(t.Context(), "udp", server, name, typeA); len(rep.addrs) != 1 {
				t.Fatalf("got %+v", rep)
			}
			q := <-seen
			ids, ports = append(ids, q.id), append(ports, q.port)
			for i := range capitals {
				if 'A' <= q.name[i] && q.name[i] <= 'Z' {
					capitals[i]++
				}
			}
		}
		id, port, letters := collisionBits(ids), collisionBits(ports), 0.0
		for _, n := range capitals {
			if n > 0 {
				letters -= math.Log2(max(float64(n), questions-float64(n)) / questions)
			}
		}
		t.Logf("%s: ID %.1f bits, port %.1f, letters %.1f", name, id, port, letters)
		if sum := id + port + letters; sum < least {
			t.Errorf("%s: %.1f bits, want at least %.0f", name, sum, least)
		} else {
			t.Attr("count", fmt.Sprintf("bits to guess in a question for %s=%.0f", name, math.Floor(sum)))
		}
	}
}

// collisionBits estimates the entropy of what values were drawn from, by how
// many pairs of them are equal.
func collisionBits(values []uint16) float64 {
	counts := map[uint16]int{}
	for _, v := range values {
		counts[v]++
	}
	equal := 1 // never none
	for _, n := range counts {
		equal += n * (n - 1) / 2
	}
	return math.Log2(float64(len(values)) * float64(len(values)-1) / 2 / float64(equal))
}

// An answer that claims ten thousand records, of which as many follow as 64 KiB
// hold, costs no more memory than any other.
func TestMemoryForAnAnswerIsBounded(t *testing.T) {
	t.Attr("id", "D3")
	const claimed, most, rounds = 10_000, 64 << 10, 50
	q := newQuery("access.example", typeA, false)
	var msg dns.Msg
	msg.SetQuestion(q.name, typeA)
	msg.Id, msg.Response = q.id, true
	b, err := msg.Pack()
	if err != nil {
		t.Fatal(err)
	}
	b[6], b[7] = byte(claimed>>8), byte(claimed&0xff)
	for i := 0; len(b)+16 <= 1<<16-1; i++ { // RFC 1035 §4.1.3; a pointer to the question's name
		b = append(b, 0xc0, headerBytes, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, byte(i>>8), byte(i))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		if rep := judge(q, b); len(rep.addrs) != maxFound {
			t.Fatalf("%d addresses, %s", len(rep.addrs), rep.reason)
		}
	}
	runtime.ReadMemStats(&after)
	each := (after.TotalAlloc - before.TotalAlloc) / rounds
	if each > most {
		t.Errorf("%d bytes for an answer, want at most %d", each, most)
	}
	t.Attr("count", fmt.Sprintf("bytes of memory for an answer of 10000 records=%d", each))
}
