package probe

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// vectorQuery is what the answers in testdata/dns_replies.txt answer.
var vectorQuery = query{id: 0x1234, name: "aCCess.eXample.", qtype: typeA, mixed: true}

type vector struct {
	name, want string
	data       []byte
}

// vectors reads lines of: name | wanted result | hex bytes.
func vectors(tb testing.TB, path string) (all []vector) {
	tb.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.Split(strings.TrimSpace(line), "|")
		if strings.HasPrefix(line, "#") || len(parts) != 3 {
			continue
		}
		data, err := hex.DecodeString(strings.Join(strings.Fields(parts[2]), ""))
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, vector{name: strings.TrimSpace(parts[0]), want: strings.TrimSpace(parts[1]), data: data})
	}
	if len(all) == 0 {
		tb.Fatalf("no vectors in %s", path)
	}
	return all
}

func (r reply) String() string {
	names := [...]string{"ignored", "mangled", "formerr", "truncated", "answered"}
	if len(r.addrs) == 0 {
		return strings.TrimSpace(names[r.fit] + " " + string(r.reason))
	}
	return fmt.Sprint(names[r.fit], " ", r.addrs, " ", r.ttl)
}

func TestJudgeVectors(t *testing.T) {
	for _, v := range vectors(t, "testdata/dns_replies.txt") {
		t.Run(v.name, func(t *testing.T) {
			if got := judge(vectorQuery, v.data).String(); got != v.want {
				t.Errorf("got %q, want %q", got, v.want)
			}
		})
	}
}

// Every answer cut short at any byte is read again over TCP or ignored; it
// never gives an address.
func TestJudgeTruncatedAtEveryByte(t *testing.T) {
	for _, v := range vectors(t, "testdata/dns_replies.txt") {
		for n := range v.data {
			if got := judge(vectorQuery, v.data[:n]); len(got.addrs) > 0 && !strings.Contains(v.name, "left over") {
				t.Errorf("%s cut at %d gives %v", v.name, n, got)
			}
		}
	}
}

// What is sent comes back as it was sent, read by an independent decoder.
func TestQuestionOnTheWire(t *testing.T) {
	for _, edns := range []bool{true, false} {
		q := newQuery("access.example", typeAAAA, true)
		b, err := q.pack(edns)
		if err != nil {
			t.Fatal(err)
		}
		var m dns.Msg
		if err := m.Unpack(b); err != nil {
			t.Fatal(err)
		}
		want := dns.Question{Name: q.name, Qtype: typeAAAA, Qclass: dns.ClassINET}
		if m.Id != q.id || !m.RecursionDesired || len(m.Question) != 1 || m.Question[0] != want {
			t.Errorf("sent %v", &m)
		}
		opt := m.IsEdns0()
		if (opt != nil) != edns || edns && (opt.UDPSize() != ednsBytes || opt.Do()) {
			t.Errorf("EDNS %v, sent %v", edns, opt)
		}
	}
}

// An off-path forger has to guess ID and case: each bit of both is random.
func TestEveryBitThatAForgerMustGuessVaries(t *testing.T) {
	const name, letters, rounds = "access.example", 13, 256
	var ones [16 + letters]int
	for range rounds {
		q := newQuery(name, typeA, true)
		for i := range 16 {
			ones[i] += int(q.id >> i & 1)
		}
		i := 16
		for _, c := range []byte(q.name) {
			if c != '.' {
				ones[i] += 1 - int(c>>5&1)
				i++
			}
		}
	}
	for i, n := range ones {
		if n < rounds/4 || n > rounds*3/4 { // 8 standard deviations
			t.Errorf("bit %d is set %d times of %d", i, n, rounds)
		}
	}
	t.Logf("%d random bits in a question, beside the port", len(ones))
}

func FuzzJudge(f *testing.F) {
	for _, v := range vectors(f, "testdata/dns_replies.txt") {
		f.Add(v.data)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		rep := judge(vectorQuery, msg)
		if len(rep.addrs) > maxFound || rep.ttl < 0 || rep.ttl > maxTTL {
			t.Errorf("out of bounds: %v", rep)
		}
		if (len(rep.addrs) > 0) == (rep.reason != "") && rep.fit != ignored && rep.fit != mangled {
			t.Errorf("neither addresses nor a reason, or both: %v", rep)
		}
		for _, a := range rep.addrs {
			if !a.Is4() {
				t.Errorf("asked for A, got %v", a)
			}
		}
		if rep.fit != ignored && (len(msg) < headerBytes || msg[0] != 0x12 || msg[1] != 0x34) {
			t.Errorf("accepted another ID: %v", rep)
		}
	})
}
