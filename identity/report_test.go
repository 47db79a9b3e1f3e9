package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// p256Of makes the same P-256 key for the same name.
func p256Of(tb testing.TB, name string) *ecdsa.PrivateKey {
	tb.Helper()
	hash := sha256.Sum256([]byte(name))
	return must(ecdsa.ParseRawPrivateKey(elliptic.P256(), hash[:]))(tb)
}

// someReports has one that still runs, one that has ended, and one that is as long as can be.
func someReports(tb testing.TB) map[string]Report {
	uid := must(ParseUID(someUID))(tb)
	all := Carried{MaxSerial, MaxSerial, MaxSerial}
	long := Report{strings.Repeat("d", 63), uid, strings.Repeat("f", 32), MaxSerial, strings.Repeat("u", 63), SPKI{1}, MaxSerial, maxSeconds, maxSeconds,
		maxSeconds, strings.Repeat("r", 32), nil, all, MaxSerial, MaxSerial}
	for range MaxReached {
		long.Streams = append(long.Streams, Reached{strings.Repeat("t", 64), maxSeconds, maxSeconds, all, strings.Repeat("r", 32)})
	}
	return map[string]Report{
		"runs": {"plant", uid, "00112233445566778899aabbccddeeff", 1, "bob", SPKI{7}, 1, secondNow, secondNow + 3600, 0, "",
			[]Reached{{"192.168.1.5:502", secondNow + 1, 0, Carried{12, 34, 1}, ""}}, Carried{}, 0, 0},
		"ended": {"plant", uid, "00112233445566778899aabbccddeeff", 2, "bob", SPKI{7}, 3, secondNow, secondNow + 9, secondNow + 9, "closed",
			[]Reached{{"192.168.1.5:502", secondNow + 1, secondNow + 2, Carried{12, 34, 1}, "closed"}, {"[fd00::1]:80", secondNow + 1, secondNow + 8,
				Carried{5, 6, 10_000}, "reset"}}, Carried{1, 2, 3}, 4, 5},
		"empty": {"plant", uid, "00112233445566778899aabbccddeeff", 1, "bob", SPKI{7}, 1, secondNow, secondNow, secondNow, "closed", []Reached{}, Carried{}, 0, 0},
		"long":  long,
	}
}

func TestReportsRoundTrip(t *testing.T) {
	t.Attr("id", "T-vectors")
	for what, r := range someReports(t) {
		for _, key := range []crypto.Signer{keyOf("device"), p256Of(t, "device")} {
			signed, err := r.Sign(key)
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			back, err := ParseReport(signed.JWS)
			if err != nil || back.JWS != signed.JWS || !reflect.DeepEqual(back.Report, r) {
				t.Errorf("%s: came back as %+v, %v", what, back, err)
			}
			own := must(NewPublicKey(key.Public()))(t)
			for _, other := range []PublicKey{pubOf(t, "device"), pubOf(t, "other"), must(NewPublicKey(p256Of(t, "device").Public()))(t), {}} {
				if back.SignedBy(other) != (other == own) {
					t.Errorf("%s: signed by %v", what, other)
				}
			}
			if err := independentReport(signed.JWS); err != nil || !independentReportSigned(t, signed.JWS, own) {
				t.Errorf("%s: the independent verifier says %v", what, err)
			}
		}
	}
}

func TestReportIsThatOfTheSpec(t *testing.T) {
	r := must(someReports(t)["ended"].Sign(keyOf("device")))(t)
	want := `{"domain":"plant","uid":"` + someUID + `","session":"00112233445566778899aabbccddeeff","epoch":2,"user":"bob","peer":"` + SPKI{7}.String() +
		`","part":3,"begin":1772366400,"at":1772366409,"end":1772366409,"reason":"closed","streams":[` +
		`{"target":"192.168.1.5:502","begin":1772366401,"end":1772366402,"in":12,"out":34,"count":1,"reason":"closed"},` +
		`{"target":"[fd00::1]:80","begin":1772366401,"end":1772366408,"in":5,"out":6,"count":10000,"reason":"reset"}],` +
		`"more":{"in":1,"out":2,"count":3},"refused":4,"lost":5}`
	if got := payloadOf(t, Signed{JWS: r.JWS}); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAnyBitFlippedInAReportIsNoticed(t *testing.T) {
	t.Attr("id", "T-evidence")
	for _, key := range []crypto.Signer{keyOf("device"), p256Of(t, "device")} {
		good, own := must(someReports(t)["ended"].Sign(key))(t).JWS, must(NewPublicKey(key.Public()))(t)
		for i := range 8 * len(good) {
			b := []byte(good)
			b[i/8] ^= 1 << (i % 8)
			read, err := ParseReport(string(b))
			if err == nil && read.SignedBy(own) || err != nil && FaultOf(err) != FaultMalformed {
				t.Fatalf("bit %d flipped: %v", i, err)
			}
			if other := independentReport(string(b)); (err == nil) != (other == nil) {
				t.Fatalf("bit %d flipped: we say %v, the independent verifier %v\n%s", i, err, other, b)
			}
		}
	}
}

func TestTheOtherSignatureOfTheSameKeyIsNone(t *testing.T) {
	key := p256Of(t, "device")
	good := must(someReports(t)["ended"].Sign(key))(t)
	parts := strings.Split(good.JWS, ".")
	signature := must(plainBase64(parts[2]))(t)
	s := new(big.Int).SetBytes(signature[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(signature[32:])
	other := must(ParseReport(parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(signature)))(t)
	own := must(NewPublicKey(key.Public()))(t)
	if !good.SignedBy(own) || other.SignedBy(own) || independentReportSigned(t, other.JWS, own) {
		t.Error("a report has two texts")
	}
}

// badReports are reports that say what may not be said, and those of another spelling.
func badReports(tb testing.TB) map[string]string {
	key := keyOf("device")
	all := spoiledJWS(tb, must(someReports(tb)["ended"].Sign(key))(tb).JWS, typReport, key)
	replace := func(of, old, new string) {
		payload := payloadOf(tb, Signed{JWS: must(someReports(tb)[of].Sign(key))(tb).JWS})
		if !strings.Contains(payload, old) {
			tb.Fatalf("%s has no %s", of, old)
		}
		all[of+" "+old+" "+new] = jwsOf(`{"alg":"EdDSA","typ":"hawser-report"}`, strings.Replace(payload, old, new, 1), key)
	}
	replace("ended", `"plant"`, `"Plant"`)
	replace("ended", `"bob"`, `"b b"`)
	replace("ended", `"`+someUID+`"`, `"`+strings.Repeat("0", 32)+`"`)
	replace("ended", SPKI{7}.String(), strings.Repeat("0", 64))
	replace("ended", "00112233445566778899aabbccddeeff", "00112233445566778899AABBCCDDEEFF")
	replace("ended", "00112233445566778899aabbccddeeff", "00112233445566778899aabbccddeef")
	for _, number := range []string{`"epoch":0`, `"epoch":9007199254740992`, `"epoch":-1`} {
		replace("ended", `"epoch":2`, number)
	}
	replace("ended", `"part":3`, `"part":0`)
	replace("ended", `"begin":1772366400`, `"begin":0`)
	replace("ended", `"at":1772366409`, `"at":0`)
	replace("ended", `"at":1772366409`, `"at":8796093022208`)
	replace("ended", `"end":1772366409`, `"end":0`)
	replace("ended", `"end":1772366409`, `"end":-1`)
	replace("runs", `"end":0,"reason":""`, `"end":0,"reason":"closed"`)
	for _, reason := range []string{`"Closed"`, `"clo sed"`, `""`, `"` + strings.Repeat("a", 33) + `"`} {
		replace("ended", `"closed"`, reason)
	}
	for _, target := range []string{"", strings.Repeat("t", 65), "a b", `a\\b`, `a<b`, "a&b", "plc\u00fc", `a\"b`, `a\tb`} {
		replace("ended", `"192.168.1.5:502"`, `"`+target+`"`)
	}
	replace("ended", `"count":10000`, `"count":0`)
	replace("ended", `"in":12`, `"in":9007199254740992`)
	replace("ended", `"more":{"in":1,"out":2,"count":3}`, `"more":{"out":2,"in":1,"count":3}`)
	replace("ended", `"more":{"in":1,"out":2,"count":3}`, `"more":null`)
	replace("empty", `[]`, `null`)
	replace("empty", `[]`, `[null]`)
	one := `{"target":"192.168.1.5:502","begin":1772366401,"end":0,"in":12,"out":34,"count":1,"reason":""}`
	replace("runs", one, strings.Repeat(one+",", MaxReached)+one)
	good := must(someReports(tb)["ended"].Sign(key))(tb).JWS
	all["another algorithm"] = strings.Replace(good, reportHeader(algEdDSA), reportHeader("ES384"), 1)
	return all
}

func TestEachBadReportIsRefusedTwice(t *testing.T) {
	t.Attr("id", "T-vectors")
	bad := badReports(t)
	for what, jws := range bad {
		_, err := ParseReport(jws)
		if other := independentReport(jws); FaultOf(err) != FaultMalformed || other == nil {
			t.Errorf("%s: we say %v, the independent verifier %v", what, err, other)
		}
	}
	if len(bad) < 150 {
		t.Errorf("only %d bad reports", len(bad))
	}
}

func TestAReportIsNoStatementAndTheOtherWayRound(t *testing.T) {
	for what, r := range someReports(t) {
		if _, err := ParseStatement(must(r.Sign(keyOf("domain")))(t).JWS); err == nil {
			t.Errorf("%s: taken as a statement", what)
		}
	}
	for what, s := range someStatements(t) {
		if _, err := ParseReport(must(Sign(s, keyOf("domain")))(t).JWS); err == nil {
			t.Errorf("%s: taken as a report", what)
		}
	}
}

func TestOnlyKeysOfDevicesSignReports(t *testing.T) {
	_, err := someReports(t)["ended"].Sign(badSigner{})
	wantFault(t, err, FaultWrongKey)
	_, err = Report{}.Sign(keyOf("device"))
	wantFault(t, err, FaultMalformed)
}

type badSigner struct{ crypto.Signer }

func (badSigner) Public() crypto.PublicKey { return "none" }

func TestLeadsIsOfSignaturesAlone(t *testing.T) {
	uid := must(ParseUID(someUID))(t)
	device := must(Sign(DeviceStatement{"plant", uid, "press", "", serialNow, MaxSerial, false}, keyOf("domain")))(t)
	key := must(Sign(KeyStatement{"plant", Subject{UID: uid}, pubOf(t, "device"), "", serialNow}, keyOf("domain")))(t)
	pinned := Pinned{Domain: "plant", Key: pubOf(t, "domain")}
	peer := Peer{Name: DeviceName("plant", uid), SPKI: pubOf(t, "device").SPKI()}
	chain := []string{device.JWS, key.JWS}
	if err := pinned.Leads(chain, peer); err != nil { // its signer knew a list that nobody else has
		t.Error(err)
	}
	peer.SPKI = pubOf(t, "other").SPKI()
	wantFault(t, pinned.Leads(chain, peer), FaultNotStated)
	wantFault(t, pinned.Leads(chain[:1], peer), FaultMalformed)
	pinned.Key = pubOf(t, "other")
	peer.SPKI = pubOf(t, "device").SPKI()
	wantFault(t, pinned.Leads(chain, peer), FaultNotStated)
}

// The second verifier, from identity §17 alone.

const (
	reNatural = `(?:0|[1-9][0-9]{0,15})`
	reMore    = `"in":` + reNatural + `,"out":` + reNatural + `,"count":` + reNatural
	reCarried = `"in":` + reNatural + `,"out":` + reNatural + `,"count":[1-9][0-9]{0,15}`
	reEnd     = `"end":(?:0,REST"reason":""|[1-9][0-9]{0,12},REST"reason":"[a-z-]{1,32}")`
)

var (
	reReached = `\{"target":"(?:[!#-%'-;=?-\[\]-~]){1,64}","begin":[1-9][0-9]{0,12},` + strings.ReplaceAll(reEnd, "REST", reCarried+",") + `\}`
	reReport  = regexp.MustCompile(`^\{"domain":"` + reLabel + `","uid":"(?P<uid>` + reUID + `)","session":"[0-9a-f]{32}","epoch":[1-9][0-9]{0,15},"user":"` + reLabel +
		`","peer":"(?P<peer>[0-9a-f]{64})","part":[1-9][0-9]{0,15},"begin":[1-9][0-9]{0,12},"at":[1-9][0-9]{0,12},` + strings.ReplaceAll(reEnd, "REST", "") +
		`,"streams":\[(?:` + reReached + `(?:,` + reReached + `){0,9})?\],"more":\{` + reMore + `\},"refused":` + reNatural + `,"lost":` + reNatural + `\}$`)
	reReportHeader = regexp.MustCompile(`^\{"alg":"(EdDSA|ES256)","typ":"hawser-report"\}$`)
	reMember       = regexp.MustCompile(`"(begin|at|end|in|out|count|epoch|part|refused|lost)":([0-9]+)`)
)

func independentReport(jws string) error {
	parts := strings.Split(jws, ".")
	if len(parts) != 3 || len(jws) > 4096 {
		return fmt.Errorf("%d parts", len(parts))
	}
	var raw [3][]byte
	var err error
	for i, part := range parts {
		if raw[i], err = plainBase64(part); err != nil {
			return err
		}
	}
	said := match(reReport, string(raw[1]))
	if !reReportHeader.Match(raw[0]) || len(raw[2]) != 64 || said == nil || !json.Valid(raw[1]) {
		return fmt.Errorf("header, payload or signature")
	}
	if strings.Trim(said["uid"], "0") == "" || strings.Trim(said["peer"], "0") == "" {
		return fmt.Errorf("zero")
	}
	for _, m := range reMember.FindAllStringSubmatch(string(raw[1]), -1) {
		n, time := number(m[2]), m[1] == "begin" || m[1] == "at" || m[1] == "end"
		if n > 1<<53-1 || time && n >= 1<<43 {
			return fmt.Errorf("%s is %d", m[1], n)
		}
	}
	return nil
}

func independentReportSigned(tb testing.TB, jws string, key PublicKey) bool {
	parts := strings.Split(jws, ".")
	header := string(must(plainBase64(parts[0]))(tb))
	der, signature := must(plainBase64(key.String()))(tb), must(plainBase64(parts[2]))(tb)
	if strings.Contains(header, "EdDSA") {
		return len(der) == 44 && independentSigned(jws, der[12:])
	}
	if len(der) != 91 {
		return false
	}
	pub := must(ecdsa.ParseUncompressedPublicKey(elliptic.P256(), der[26:]))(tb)
	hash := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	s := new(big.Int).SetBytes(signature[32:])
	twice := new(big.Int).Lsh(s, 1)
	return twice.Cmp(elliptic.P256().Params().N) < 0 && ecdsa.Verify(pub, hash[:], new(big.Int).SetBytes(signature[:32]), s)
}

func writeReports(tb testing.TB) {
	write := func(name, jws string, expect Fault, key PublicKey) {
		writeVector(tb, "report-"+name, nil, expect, "report", strconv.Quote(jws), "key", key.String())
	}
	ed, p256 := pubOf(tb, "device"), must(NewPublicKey(p256Of(tb, "device").Public()))(tb)
	for what, r := range someReports(tb) {
		write("good-"+what, must(r.Sign(keyOf("device")))(tb).JWS, "", ed)
	}
	good := must(someReports(tb)["ended"].Sign(p256Of(tb, "device")))(tb).JWS
	write("good-p256", good, "", p256)
	write("p256-other-key", good, FaultBadSignature, must(NewPublicKey(p256Of(tb, "other").Public()))(tb))
	write("p256-by-ed25519", good, FaultBadSignature, ed)
	write("other-key", must(someReports(tb)["ended"].Sign(keyOf("other")))(tb).JWS, FaultBadSignature, ed)
	write("flipped", good[:len(good)-3]+"AAA", FaultBadSignature, p256)
	bad := badReports(tb)
	for i, what := range slices.Sorted(maps.Keys(bad)) {
		if i%4 == 0 {
			write(fmt.Sprintf("bad-%03d-%.40s", i, vectorName(what)), bad[what], FaultMalformed, ed)
		}
	}
}

func TestReportVectors(t *testing.T) {
	t.Attr("id", "T-vectors")
	eachVector(t, "report", 40, func(t *testing.T, v vector) {
		jws := must(strconv.Unquote(v.get(t, "report")))(t)
		key := must(ParsePublicKey(v.get(t, "key")))(t)
		r, err := ParseReport(jws)
		if err == nil && !r.SignedBy(key) {
			err = refuse(FaultBadSignature, "not signed by that key")
		}
		v.expect(t, err)
		got := "success"
		if err := independentReport(jws); err != nil {
			got = "malformed"
		} else if !independentReportSigned(t, jws, key) {
			got = "bad-signature"
		}
		if got != v.get(t, "expect") {
			t.Errorf("the independent verifier says %s", got)
		}
	})
}

func FuzzParseReport(f *testing.F) {
	key := pubOf(f, "device")
	signed := map[string]bool{}
	seeds(f, "report", func(v vector) {
		jws := must(strconv.Unquote(v.get(f, "report")))(f)
		f.Add(jws)
		signed[jws] = v.fields["expect"] == "success"
	})
	f.Fuzz(func(t *testing.T, jws string) {
		r, err := ParseReport(jws)
		if other := independentReport(jws); (err == nil) != (other == nil) {
			t.Errorf("we say %v, the independent verifier %v", err, other)
		}
		if refused(t, err) {
			return
		}
		if r.SignedBy(key) && !signed[jws] {
			t.Errorf("took %v, which nobody signed", r.Report)
		}
		again := must(r.Sign(keyOf("other")))(t)
		if payloadOf(t, Signed{JWS: again.JWS}) != payloadOf(t, Signed{JWS: jws}) {
			t.Error("it came back as another one")
		}
	})
}
