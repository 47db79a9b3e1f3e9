package identity

import (
	"crypto/x509"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"
)

var update = flag.Bool("update", false, "write testdata/vectors anew")

// TestUpdateVectors writes the vectors when asked with -update, from a fixed seed, so that unchanged rules give unchanged
// files. What they expect is written down here and in the matrices; the code under test has no say in it.
func TestUpdateVectors(t *testing.T) {
	if !*update {
		return
	}
	cryptotest.SetGlobalRandom(t, 1)
	for _, file := range must(filepath.Glob(filepath.Join(vectorDir, "*")))(t) {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	s := newTimeServer(t)
	writeFile(t, "roots.pem", s.roots.PEM())
	writeNames(t)
	writeCodes(t)
	writeChains(t, s.infra)
	writeTimes(t, s)
	writeResets(t, s.infra)
	grantKey := newKey(t)
	writeAuditHeads(t, auditor{s.infra, grantKey, must(s.root.CertifyGrantKey(AccessName("a"), grantKey.Public(), testNow))(t)})
	writeStatements(t)
	writeDomainResets(t, s.infra)
	writeOwnerCodes(t)
	writeStated(t)
	writeUnions(t)
	writeReports(t)
	writeRefusedKeys(t, s.infra)
	writeJoinStates(t, auditor{s.infra, grantKey, must(s.root.CertifyGrantKey(AccessName("a"), grantKey.Public(), testNow))(t)})
}

func writeFile(tb testing.TB, name string, b []byte) {
	tb.Helper()
	if err := os.WriteFile(filepath.Join(vectorDir, name), b, 0o644); err != nil {
		tb.Fatal(err)
	}
}

// writeVector writes pairs of key and value, and PEM if any.
func writeVector(tb testing.TB, name string, pem []byte, expect Fault, pairs ...string) {
	tb.Helper()
	if expect == "" {
		expect = "success"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "expect: %s\n", expect)
	for pair := range slices.Chunk(pairs, 2) {
		b.WriteString(strings.TrimSpace(pair[0]+": "+pair[1]) + "\n")
	}
	if pem != nil {
		fmt.Fprintf(&b, "\n%s", pem)
	}
	writeFile(tb, name+".txt", []byte(b.String()))
}

func writeNames(tb testing.TB) {
	for what, n := range map[string]Name{
		"device": {KindDevice, "plant", someUID}, "user": {KindUser, "plant", "ada"},
		"relay": {KindRelay, "", "r1"}, "access": {KindAccess, "", "a1"},
	} {
		uri := map[bool]string{true: "hawser:///", false: "hawser://plant/"}[n.Domain == ""] + string(n.Kind) + "/" + n.ID
		writeVector(tb, "name-"+what, nil, "", "input", strconv.Quote(uri), "kind", string(n.Kind), "domain", n.Domain, "id", n.ID)
	}
	for what, bad := range map[string]string{
		"upper-case": "hawser:///relay/R1", "escape": "hawser:///relay/r%31", "slash": "hawser:///relay/r1/", "query": "hawser:///relay/r1?",
		"fragment": "hawser:///relay/r1#", "port": "hawser://plant:1/user/ada", "no-domain": "hawser:///user/ada", "domain": "hawser://plant/relay/r1",
		"zero-uid": "hawser://plant/device/" + strings.Repeat("0", 32), "newline": "hawser:///relay/r1\n", "nul": "hawser:///relay/r1\x00",
		"scheme": "Hawser:///relay/r1", "kind": "hawser:///server/r1", "long": "hawser:///relay/" + strings.Repeat("r", 64),
	} {
		writeVector(tb, "name-bad-"+what, nil, FaultBadName, "input", strconv.Quote(bad))
	}
}

func writeCodes(tb testing.TB) {
	chars := "0011ABCDEFGHJKMNPQRSTVWXYZ023456"
	plain := withCheck(chars)
	c := Code{chars}
	for what, typed := range map[string]string{
		"plain": plain, "shown": c.String(), "lower-case": strings.ToLower(plain), "spaces": " " + plain[:9] + " \t" + plain[9:] + "\r\n",
		"letter-o": strings.ReplaceAll(plain, "0", "O"), "letter-i": strings.ReplaceAll(plain, "1", "i"), "letter-l": strings.ReplaceAll(plain, "1", "L"),
	} {
		writeVector(tb, "code-"+what, nil, "", "input", strconv.Quote(typed), "code", c.String(), "lookup", "0011AB", "hash", fmt.Sprintf("%x", c.Hash()))
	}
	for what, bad := range map[string]string{
		"empty": "", "short": plain[1:], "long": plain + "0", "typo": "1" + plain[1:], "swap": plain[:4] + "BA" + plain[6:],
		"letter-u": "U" + plain[1:], "nul": "\x00" + plain[1:], "fullwidth": "０" + plain[1:], "no-check": plain[:32],
	} {
		writeVector(tb, "code-bad-"+what, nil, FaultBadCode, "input", strconv.Quote(bad))
	}
}

func writeChains(tb testing.TB, in infra) {
	write := func(name string, chain []*x509.Certificate, now time.Time, want string, expect Fault, more ...string) {
		pairs := append([]string{"roots", "roots.pem", "now", now.Format(time.RFC3339), "want", want}, more...)
		writeVector(tb, "chain-"+name, MarshalChain(chain), expect, pairs...)
	}
	for _, matrix := range []map[string]chainCase{badChains(tb, in), badLeaves(tb, in)} {
		for _, what := range slices.Sorted(maps.Keys(matrix)) {
			c := matrix[what]
			if len(c.chain) == 0 || len(c.chain) > maxChainCerts {
				c.want = FaultMalformed // in PEM, the parser is the first to refuse it
			}
			write(what, c.chain, testNow, "relay", c.want, "name", "hawser:///relay/r")
		}
	}
	uid := must(ParseUID(someUID))(tb)
	for _, name := range []Name{DeviceName("plant", uid), UserName("plant", "ada"), RelayName("r"), AccessName("a")} {
		chain, kind := in.leaf(tb, name), string(name.Kind)
		write("good-"+kind, chain, testNow, kind, "", "name", name.String())
		write("good-any-"+kind, chain[:2], testNow, "", "", "name", name.String())
		write("unwanted-"+kind, chain, testNow, "root", FaultWrongKind)
	}
	chain := in.leaf(tb, RelayName("r"))
	for what, c := range map[string]struct {
		now  time.Time
		want Fault
	}{
		"1970": {time.Unix(0, 0).UTC(), FaultNotYetValid}, "2106": {time.Unix(1<<32, 0).UTC(), FaultExpired},
		"before": {testNow.Add(-time.Second), FaultNotYetValid}, "begin": {testNow, ""},
		"end": {testNow.Add(30 * day), ""}, "after": {testNow.Add(30*day + time.Second), FaultExpired},
	} {
		write("date-"+what, chain, c.now, "relay", c.want, "name", "hawser:///relay/r")
	}
}

func writeTimes(tb testing.TB, s timeServer) {
	strange := newTimeServer(tb)
	grant := must(s.root.CertifyGrantKey(AccessName("a"), s.key.Public(), testNow))(tb)
	late := someTime
	late.Time = s.cert.NotAfter.Add(1)
	early := someTime
	early.Time = s.cert.NotBefore.Add(-1)
	good := must(someTime.Sign(s.key, s.cert))(tb)
	flipped := slices.Clone(good)
	flipped[timeMessageBytes] ^= 1
	write := func(name string, b []byte, expect Fault, asked SignedTime) {
		writeVector(tb, "time-"+name, nil, expect, "roots", "roots.pem", "signed", hex.EncodeToString(b),
			"nonce", hex.EncodeToString(asked.Nonce[:]), "name", AccessName("a").String(), "server", asked.Server.String(), "uid", asked.UID.String(),
			"time", someTime.Time.Format(time.RFC3339Nano), "sequence", fmt.Sprint(asked.Sequence))
	}
	write("good", good, "", someTime)
	none := SignedTime{Time: someTime.Time}
	write("good-no-uid", must(none.Sign(s.key, s.cert))(tb), "", none)
	write("flipped", flipped, FaultBadSignature, someTime)
	write("truncated", good[:len(good)-1], FaultMalformed, someTime)
	write("short", good[:timeMessageBytes], FaultMalformed, someTime)
	write("context", append([]byte("H"), good[1:]...), FaultMalformed, someTime)
	write("late", must(late.Sign(s.key, s.cert))(tb), FaultExpired, someTime)
	write("early", must(early.Sign(s.key, s.cert))(tb), FaultNotYetValid, someTime)
	write("grant-key", must(someTime.Sign(s.key, grant))(tb), FaultWrongKind, someTime)
	write("other-root", must(someTime.Sign(strange.key, strange.cert))(tb), FaultWrongRoot, someTime)
	asked := someTime
	asked.Nonce[0]++
	write("nonce", good, FaultWrongNonce, asked)
	asked = someTime
	asked.Server[0]++
	write("server", good, FaultWrongServer, asked)
	asked = someTime
	asked.UID[0]++
	write("uid", good, FaultWrongUID, asked)
	neighbour := must(s.root.CertifyTimeKey(AccessName("b"), s.key.Public(), testNow))(tb)
	write("other-server", must(someTime.Sign(s.key, neighbour))(tb), FaultWrongServer, someTime)
}

func writeResets(tb testing.TB, in infra) {
	good := must(someReset.Sign(in.root))(tb)
	write := func(name string, b []byte, expect Fault, uid UID, r FloorReset) {
		writeVector(tb, "reset-"+name, nil, expect, "roots", "roots.pem", "reset", hex.EncodeToString(b), "uid", hex.EncodeToString(uid[:]),
			"to", r.To.Format(time.RFC3339Nano), "sequence", fmt.Sprint(r.Sequence))
	}
	flipped := slices.Clone(good)
	flipped[30] ^= 1
	bare := slices.Clone(good)
	clear(bare[resetMessageBytes:])
	least, most := FloorReset{UID: someReset.UID, To: time.Unix(0, 0).UTC()}, FloorReset{someReset.UID, time.Unix(0, 1<<63-1).UTC(), 1<<64 - 1}
	write("good", good, "", someReset.UID, someReset)
	write("least", must(least.Sign(in.root))(tb), "", least.UID, least)
	write("most", must(most.Sign(in.root))(tb), "", most.UID, most)
	write("flipped", flipped, FaultBadSignature, someReset.UID, someReset)
	write("unsigned", bare, FaultBadSignature, someReset.UID, someReset)
	write("issuing-ca", must(someReset.Sign(in.issuing))(tb), FaultBadSignature, someReset.UID, someReset)
	write("other-root", must(someReset.Sign(newInfra(tb, testNow).root))(tb), FaultBadSignature, someReset.UID, someReset)
	write("truncated", good[:len(good)-1], FaultMalformed, someReset.UID, someReset)
	write("longer", append(slices.Clone(good), 0), FaultMalformed, someReset.UID, someReset)
	write("context", append([]byte("H"), good[1:]...), FaultMalformed, someReset.UID, someReset)
	write("uid", good, FaultWrongUID, UID{1}, someReset)
	write("no-uid", good, FaultWrongUID, UID{}, someReset)
}

func writeRefusedKeys(tb testing.TB, in infra) {
	write := func(name string, b []byte, expect Fault, r RefusedKeys) {
		var keys []string
		for _, k := range r.Keys {
			keys = append(keys, k.String())
		}
		writeVector(tb, "refused-"+name, nil, expect, "roots", "roots.pem", "list", hex.EncodeToString(b),
			"sequence", fmt.Sprint(r.Sequence), "keys", strings.Join(keys, " "))
	}
	good := must(someRefused.Sign(in.root))(tb)
	one, most := RefusedKeys{Keys: []SPKI{{}}}, RefusedKeys{Sequence: 1<<64 - 1}
	for i := range MaxRefusedKeys {
		most.Keys = append(most.Keys, SPKI{byte(i), 31: 1})
	}
	signed := func(change func(b []byte) []byte) []byte {
		return signRaw(tb, in.root, change(slices.Clone(good[:len(good)-64])))
	}
	flipped := slices.Clone(good)
	flipped[40] ^= 1
	write("good", good, "", someRefused)
	write("one", must(one.Sign(in.root))(tb), "", one)
	write("most", must(most.Sign(in.root))(tb), "", most)
	write("flipped", flipped, FaultBadSignature, someRefused)
	write("issuing-ca", must(someRefused.Sign(in.issuing))(tb), FaultBadSignature, someRefused)
	write("other-root", must(someRefused.Sign(newInfra(tb, testNow).root))(tb), FaultBadSignature, someRefused)
	write("truncated", good[:len(good)-1], FaultMalformed, someRefused)
	write("longer", append(slices.Clone(good), 0), FaultMalformed, someRefused)
	write("none", signed(func(b []byte) []byte { return b[:refusedHead] }), FaultMalformed, someRefused)
	write("65", signed(func(b []byte) []byte {
		for _, k := range append(most.Keys, SPKI{100}) {
			b = append(b, k[:]...)
		}
		return slices.Delete(b, refusedHead, refusedHead+32*len(someRefused.Keys))
	}), FaultMalformed, someRefused)
	write("twice", signed(func(b []byte) []byte { return append(b, b[len(b)-32:]...) }), FaultMalformed, someRefused)
	write("unsorted", signed(func(b []byte) []byte { return append(b, make([]byte, 32)...) }), FaultMalformed, someRefused)
	write("context", signed(func(b []byte) []byte { b[21] = '2'; return b }), FaultMalformed, someRefused)
}

func writeJoinStates(tb testing.TB, s auditor) {
	good := must(someJoin.Sign(s.key, s.cert))(tb)
	write := func(name string, b []byte, expect Fault) {
		writeVector(tb, "join-"+name, nil, expect, "roots", "roots.pem", "state", hex.EncodeToString(b), "node", someJoin.Node,
			"uid", someJoin.UID.String(), "spki", someJoin.SPKI.String(), "counter", fmt.Sprint(someJoin.Counter),
			"random", hex.EncodeToString(someJoin.Random[:]), "time", someJoin.Time.Format(time.RFC3339Nano))
	}
	flipped := slices.Clone(good)
	flipped[80] ^= 1
	strange := newAuditor(tb)
	write("good", good, "")
	write("flipped", flipped, FaultBadSignature)
	write("truncated", good[:len(good)-1], FaultMalformed)
	write("other-root", must(someJoin.Sign(strange.key, strange.cert))(tb), FaultWrongRoot)
	// By another program, from the specification.
	writeVector(tb, "words-one", nil, "", "uid", someJoin.UID.String(), "spki", someJoin.SPKI.String(), "words", "tizij haboj munaz luhig")
	writeVector(tb, "words-other-device", nil, "", "uid", UID{2}.String(), "spki", someJoin.SPKI.String(), "words", "judiz dakil kibok sapop")
}

func writeAuditHeads(tb testing.TB, s auditor) {
	good := must(someHead.Sign(s.key, s.cert))(tb)
	write := func(name string, b []byte, expect Fault) {
		writeVector(tb, "audit-"+name, nil, expect, "roots", "roots.pem", "head", hex.EncodeToString(b), "node", someHead.Node,
			"seq", fmt.Sprint(someHead.Seq), "hash", hex.EncodeToString(someHead.Hash[:]), "time", someHead.Time.Format(time.RFC3339Nano))
	}
	flipped := slices.Clone(good)
	flipped[30] ^= 1
	late := someHead
	late.Time = s.cert.NotAfter.Add(1)
	strange := newAuditor(tb)
	timeCert := must(s.root.CertifyTimeKey(AccessName("a"), s.key.Public(), testNow))(tb)
	write("good", good, "")
	write("flipped", flipped, FaultBadSignature)
	write("truncated", good[:len(good)-1], FaultMalformed)
	write("short", good[:auditFixedBytes], FaultMalformed)
	write("context", append([]byte("H"), good[1:]...), FaultMalformed)
	write("late", must(late.Sign(s.key, s.cert))(tb), FaultExpired)
	write("time-key", must(someHead.Sign(s.key, timeCert))(tb), FaultWrongKind)
	write("other-root", must(someHead.Sign(strange.key, strange.cert))(tb), FaultWrongRoot)
}
