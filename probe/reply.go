package probe

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Limits for one answer, names §4.
const (
	maxRecords = 256 // looked at
	maxFound   = 64  // address records kept while the aliases are still unknown
	maxAliases = 16
	maxSteps   = maxAliases // of a CNAME chain
)

const (
	typeA     = dns.TypeA
	typeAAAA  = dns.TypeAAAA
	ednsBytes = 1232 // names §2: fits into the smallest IPv6 packet
)

// query is a question as it was sent. An answer must repeat it.
type query struct {
	id    uint16
	name  string // with its final dot, in the letter case that is sent
	qtype uint16
	mixed bool // the case was mixed, and must come back (0x20)
}

// newQuery makes a query with a random ID and, if mixed, random letter case.
func newQuery(name string, qtype uint16, mixed bool) query {
	var id [2]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	q := query{id: binary.BigEndian.Uint16(id[:]), name: dns.Fqdn(name), qtype: qtype, mixed: mixed}
	if mixed {
		q.name = mixCase(q.name)
	}
	return q
}

// mixCase sets the case of each letter at random (0x20): one more bit for each that a forger who does not see the query
// has to guess.
func mixCase(name string) string {
	b := []byte(name)
	bits := make([]byte, len(b))
	rand.Read(bits)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c ^ bits[i]&0x20
		}
	}
	return string(b)
}

// pack encodes the query, with an EDNS record if edns.
func (q query) pack(edns bool) ([]byte, error) {
	m := dns.Msg{
		MsgHdr:   dns.MsgHdr{Id: q.id, RecursionDesired: true},
		Question: []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: dns.ClassINET}},
	}
	if edns {
		m.SetEdns0(ednsBytes, false)
	}
	return m.Pack()
}

// fit is how well a message answers a query.
type fit uint8

const (
	ignored   fit = iota // not an answer to this query
	mangled              // the answer, except that the letter case differs
	formErr              // the server did not understand the query, perhaps because of EDNS
	truncated            // the answer, incomplete or unreadable
	answered             // the answer; see reply.reason
)

// reply is a message that was judged.
type reply struct {
	fit    fit
	reason Reason // why there are no addrs, "" if there are
	addrs  []netip.Addr
	ttl    time.Duration
}

// judge parses msg as an answer to q. It is pure, keeps no part of msg, and its memory is bounded whatever msg contains
// (names §4). It looks at header and question before anything else is parsed: what does not answer us costs nothing.
func judge(q query, msg []byte) reply {
	if len(msg) < headerBytes {
		return reply{fit: ignored}
	}
	h := parseHeader(msg)
	// Ignored and no failure: whoever sends such a thing may be a forger, and the true answer may still come.
	if h.id != q.id || !h.response || h.opcode != dns.OpcodeQuery {
		return reply{fit: ignored}
	}
	if h.questions == 0 && h.rcode != dns.RcodeSuccess && h.rcode != dns.RcodeNameError {
		return byCode(h.rcode) // some servers refuse with a header alone; a forged refusal only makes us ask another way
	}
	off, v := q.compare(msg, h)
	if v != answered {
		return reply{fit: v}
	}
	switch {
	case h.truncated:
		return reply{fit: truncated, reason: ReasonTruncated}
	case h.rcode != dns.RcodeSuccess:
		return byCode(h.rcode)
	}
	recs, ok := readRecords(msg, off, h.answers)
	if !ok {
		return reply{fit: truncated, reason: ReasonTruncated}
	}
	return recs.resolve(q)
}

const headerBytes = 12 // RFC 1035 §4.1.1

type header struct {
	id                  uint16
	response, truncated bool
	opcode, rcode       int
	questions, answers  uint16
}

// parseHeader reads the first 12 bytes (RFC 1035 §4.1.1).
func parseHeader(msg []byte) header {
	bits := binary.BigEndian.Uint16(msg[2:])
	return header{
		id:        binary.BigEndian.Uint16(msg),
		response:  bits>>15 == 1,
		opcode:    int(bits >> 11 & 0xf),
		truncated: bits>>9&1 == 1,
		rcode:     int(bits & 0xf),
		questions: binary.BigEndian.Uint16(msg[4:]),
		answers:   binary.BigEndian.Uint16(msg[6:]),
	}
}

// compare checks that msg repeats the query, and returns where its answers start. A forger who has guessed
// ID and port still has to know what was asked.
func (q query) compare(msg []byte, h header) (off int, v fit) {
	name, off, err := dns.UnpackDomainName(msg, headerBytes)
	if err != nil || h.questions != 1 || len(msg) < off+4 {
		return 0, ignored
	}
	qtype, class := binary.BigEndian.Uint16(msg[off:]), binary.BigEndian.Uint16(msg[off+2:])
	switch {
	case qtype != q.qtype || class != dns.ClassINET || !strings.EqualFold(name, q.name):
		return 0, ignored
	// Told from a forged answer: resolvers that change the case exist, and are asked without mixed case for a day
	// (names §2).
	case q.mixed && name != q.name:
		return 0, mangled
	}
	return off + 4, answered
}

// byCode is the reply for an error code (RFC 1035 §4.1.1).
func byCode(rcode int) reply {
	switch rcode {
	// Its own fit, because a question without EDNS may be understood (RFC 6891 §7).
	case dns.RcodeFormatError:
		return reply{fit: formErr, reason: ReasonBadReply}
	case dns.RcodeNameError:
		return reply{fit: answered, reason: ReasonNXDomain}
	case dns.RcodeServerFailure:
		return reply{fit: answered, reason: ReasonServFail}
	case dns.RcodeRefused:
		return reply{fit: answered, reason: ReasonRefused}
	}
	return reply{fit: answered, reason: ReasonBadReply}
}

// records are the parts of an answer section that can matter to us. Other kinds of records are skipped: a signature or
// a service record is not what was asked for.
type records struct {
	aliases map[string]alias
	addrs   []ownedAddr
}

type alias struct {
	target string
	ttl    uint32
}

type ownedAddr struct {
	owner string
	addr  netip.Addr
	ttl   uint32
}

// readRecords reads up to maxRecords of the n records at off. It reports false if one of them cannot be read: of an
// answer that breaks off nobody knows whether the address was in what is missing.
func readRecords(msg []byte, off int, n uint16) (records, bool) {
	recs := records{aliases: make(map[string]alias)}
	for range min(n, maxRecords) {
		rr, next, err := dns.UnpackRR(msg, off)
		if err != nil || next <= off {
			return records{}, false
		}
		off = next
		if rr.Header().Class == dns.ClassINET {
			recs.add(rr)
		}
	}
	return recs, true
}

func (r *records) add(rr dns.RR) {
	h := rr.Header()
	owner := strings.ToLower(h.Name)
	switch rr := rr.(type) {
	case *dns.A:
		r.addAddr(owner, rr.A, h.Ttl)
	case *dns.AAAA:
		r.addAddr(owner, rr.AAAA, h.Ttl)
	case *dns.CNAME:
		if len(r.aliases) < maxAliases {
			r.aliases[owner] = alias{target: strings.ToLower(rr.Target), ttl: h.Ttl}
		}
	}
}

func (r *records) addAddr(owner string, ip []byte, ttl uint32) {
	if addr, ok := netip.AddrFromSlice(ip); ok && len(r.addrs) < maxFound {
		r.addrs = append(r.addrs, ownedAddr{owner: owner, addr: addr.Unmap(), ttl: ttl})
	}
}

// resolve follows the aliases from the question's name to its addresses. A chain that leaves the answer is not followed
// by another query: a server that wants to send us elsewhere can put it there.
func (r *records) resolve(q query) reply {
	name, ttl := strings.ToLower(q.name), uint32(maxTTL/time.Second)
	for range maxSteps {
		a, ok := r.aliases[name]
		if !ok {
			break
		}
		name, ttl = a.target, min(ttl, a.ttl)
	}
	out := reply{fit: answered}
	for _, a := range r.addrs {
		// Of the name that the aliases end at, and no other: a record beside the chain is how a cache is poisoned.
		if a.owner == name && a.addr.Is4() == (q.qtype == typeA) {
			out.addrs = append(out.addrs, a.addr)
			ttl = min(ttl, a.ttl)
		}
	}
	if len(out.addrs) == 0 {
		out.reason = ReasonNoAddress
	}
	out.ttl = time.Duration(ttl) * time.Second
	return out
}
