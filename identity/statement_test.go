package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	serialNow = 1772366400000 // testNow
	secondNow = serialNow / 1000
	dayS      = 86400 // seconds
)

// keyOf makes the same Ed25519 key for the same name, so that failures can be repeated.
func keyOf(name string) ed25519.PrivateKey {
	seed := make([]byte, 32)
	copy(seed, name)
	return ed25519.NewKeyFromSeed(seed)
}

func pubOf(tb testing.TB, name string) PublicKey {
	tb.Helper()
	return must(NewPublicKey(keyOf(name).Public()))(tb)
}

// someStatements has one of each form, with a different value in every member.
func someStatements(tb testing.TB) map[string]Statement {
	uid := must(ParseUID(someUID))(tb)
	p256 := must(ParsePublicKey("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li_hp_m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q"))(tb)
	return map[string]Statement{
		"admin": UserStatement{"plant", "ann", RoleAdmin, nil, secondNow + 366*dayS, serialNow, 0},
		"operator": UserStatement{"plant", "bob", RoleOperator, &Scope{[]string{someUID, "north/hall 2"},
			[]string{"192.168.1.0/24:502", "[fd00::1]:*", "icmp/10.0.0.1", "serial/plc", "udp/10.0.0.0/8:1-9"}}, secondNow + 1, serialNow + 1, serialNow},
		"viewer":        UserStatement{"plant", "vic", RoleViewer, &Scope{[]string{"*"}, []string{}}, 1, MaxSerial, MaxSerial},
		"device":        DeviceStatement{"plant", uid, "press 1", "north/hall 2", serialNow, 5, false},
		"released":      DeviceStatement{"plant", uid, "Presse-№1"[:7], "", serialNow, 5, true},
		"invite":        InviteStatement{"plant", Subject{User: "bob"}, 0, pubOf(tb, "invite"), secondNow + 3*dayS, serialNow},
		"invite-device": InviteStatement{"plant", Subject{UID: uid}, 0, pubOf(tb, "invite"), secondNow + 30*dayS, serialNow},
		"key":           KeyStatement{"plant", Subject{User: "bob"}, pubOf(tb, "bob"), "laptop", serialNow},
		"key-device":    KeyStatement{"plant", Subject{UID: uid}, p256, "", 0},
		"list": ListStatement{"plant", serialNow + 999, secondNow, SortEntries([]Entry{{SPKI: SPKI{1}, Until: secondNow + 396*dayS}, {SPKI: SPKI{2}},
			{Subject: Subject{User: "bob"}, Statements: 5, Until: secondNow}, {Subject: Subject{User: "bob"}, All: 4, Until: 1},
			{Subject: Subject{UID: uid}, Statements: 7}, {Subject: Subject{UID: uid}, All: 7}})},
		"list-empty": ListStatement{"plant", serialNow, secondNow, []Entry{}},
		"domain":     DomainStatement{"plant", pubOf(tb, "domain"), pubOf(tb, "next"), serialNow},
	}
}

func TestStatementsRoundTrip(t *testing.T) {
	t.Attr("id", "T-vectors")
	key := keyOf("domain")
	for what, s := range someStatements(t) {
		signed, err := Sign(s, key)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		back, err := ParseStatement(signed.JWS)
		if err != nil || back.JWS != signed.JWS || !reflect.DeepEqual(back.Statement, s) {
			t.Errorf("%s: %v came back as %+v, %v", what, s, back, err)
		}
		if !back.SignedBy(pubOf(t, "domain")) || back.SignedBy(pubOf(t, "bob")) || back.SignedBy(PublicKey{}) {
			t.Errorf("%s: signed by another key, or not by its own", what)
		}
		typ, _, err := independent(signed.JWS)
		if err != nil || typ != s.typ() || !independentSigned(signed.JWS, key.Public().(ed25519.PublicKey)) {
			t.Errorf("%s: the independent verifier says %q, %v\n%s", what, typ, err, payloadOf(t, signed))
		}
	}
}

func TestPayloadsAreThoseOfTheSpec(t *testing.T) {
	for what, want := range map[string]string{
		"admin":         `{"domain":"plant","user":"ann","role":"admin","exp":1803988800,"serial":1772366400000,"seen":0}`,
		"invite-device": `{"domain":"plant","uid":"` + someUID + `","slot":0,"key":"` + pubOf(t, "invite").String() + `","exp":1774958400,"serial":1772366400000}`,
		"key-device":    `{"domain":"plant","uid":"` + someUID + `","key":"` + someStatements(t)["key-device"].(KeyStatement).Key.String() + `","label":"","serial":0}`,
		"list-empty":    `{"domain":"plant","serial":1772366400000,"iat":1772366400,"entries":[]}`,
		"device":        `{"domain":"plant","uid":"` + someUID + `","name":"press 1","folder":"north/hall 2","serial":1772366400000,"seen":5,"released":false}`,
	} {
		if got := payloadOf(t, must(Sign(someStatements(t)[what], keyOf("domain")))(t)); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", what, got, want)
		}
	}
}

func payloadOf(tb testing.TB, s Signed) string {
	tb.Helper()
	return string(must(base64.RawURLEncoding.DecodeString(strings.Split(s.JWS, ".")[1]))(tb))
}

func TestAnyBitFlippedInAStatementIsNoticed(t *testing.T) {
	t.Attr("id", "T-vectors")
	domain := pubOf(t, "domain")
	for what, s := range someStatements(t) {
		good := must(Sign(s, keyOf("domain")))(t).JWS
		for i := range 8 * len(good) {
			b := []byte(good)
			b[i/8] ^= 1 << (i % 8)
			read, err := ParseStatement(string(b))
			if err == nil && read.SignedBy(domain) || err != nil && FaultOf(err) != FaultMalformed {
				t.Fatalf("%s: bit %d flipped: %v", what, i, err)
			}
			if _, _, other := independent(string(b)); (err == nil) != (other == nil) {
				t.Fatalf("%s: bit %d flipped: we say %v, the independent verifier %v", what, i, err, other)
			}
		}
	}
}

// spoiled gives payloads that differ from a good one in one way, each signed by the right key, and JWS of the good payload
// in another spelling.
func spoiled(tb testing.TB, s Statement) map[string]string {
	key := keyOf("domain")
	return spoiledJWS(tb, must(Sign(s, key))(tb).JWS, s.typ(), key)
}

// spoiledJWS does it for any JWS of that form.
func spoiledJWS(tb testing.TB, good, typ string, key ed25519.PrivateKey) map[string]string {
	payload := payloadOf(tb, Signed{JWS: good})
	header := `{"alg":"EdDSA","typ":"` + typ + `"}`
	all := map[string]string{}
	sign := func(what, payload string) { all[what] = jwsOf(header, payload, key) }
	members := membersOf(tb, payload)
	for i, m := range members {
		with := func(replacement ...string) string {
			return "{" + strings.Join(slices.Concat(members[:i], replacement, members[i+1:]), ",") + "}"
		}
		name, value, _ := strings.Cut(m, ":")
		sign(fmt.Sprint("missing ", name), with())
		sign(fmt.Sprint("doubled ", name), with(m, m))
		sign(fmt.Sprint("doubled first ", name), with(name+":null", m))
		sign(fmt.Sprint("case ", name), with(strings.ToUpper(name)+":"+value))
		sign(fmt.Sprint("both cases ", name), with(m, strings.ToUpper(name[:2])+name[2:]+":"+value))
		sign(fmt.Sprint("escape ", name), with(fmt.Sprintf(`"\u%04x%s`, name[1], name[2:])+":"+value))
		sign(fmt.Sprint("null ", name), with(name+":null"))
		sign(fmt.Sprint("unknown before ", name), with(`"more":1`, m))
		sign(fmt.Sprint("space at ", name), with(name+": "+value))
		sign(fmt.Sprint("another type of ", name), with(name+`:{"a":`+value+"}"))
		if i > 0 {
			swapped := slices.Clone(members)
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
			sign(fmt.Sprint("order at ", name), "{"+strings.Join(swapped, ",")+"}")
		}
		if '0' <= value[0] && value[0] <= '9' {
			for _, number := range []string{value + ".0", value + "e0", "-" + value, "0" + value, `"` + value + `"`, "9007199254740992"} {
				sign(fmt.Sprintf("number %s:%s", name, number), with(name+":"+number))
			}
		}
		if value[0] == '"' && len(value) > 2 {
			sign(fmt.Sprint("escaped value of ", name), with(name+fmt.Sprintf(`:"\u%04x%s`, value[1], value[2:])))
			sign(fmt.Sprint("empty ", name), with(name+`:""`))
			sign(fmt.Sprint("broken UTF-8 in ", name), with(name+`:"`+"\xff"+value[1:]))
		}
	}
	sign("unknown at the end", strings.TrimSuffix(payload, "}")+`,"more":1}`)
	sign("space before", " "+payload)
	sign("line end after", payload+"\n")
	sign("two objects", payload+payload)
	sign("array", "["+payload+"]")
	sign("nothing", "")
	sign("null", "null")
	sign("byte order mark", "\ufeff"+payload)
	for what, header := range map[string]string{
		"header space": `{"alg": "EdDSA","typ":"` + typ + `"}`, "header order": `{"typ":"` + typ + `","alg":"EdDSA"}`,
		"no algorithm": `{"typ":"` + typ + `"}`, "none": `{"alg":"none","typ":"` + typ + `"}`, "unknown type": `{"alg":"EdDSA","typ":"hawser-more"}`,
		"header member": `{"alg":"EdDSA","typ":"` + typ + `","kid":"1"}`, "case of typ": `{"alg":"EdDSA","typ":"` + strings.ToUpper(typ) + `"}`, "no header": "",
	} {
		all[what] = jwsOf(header, payload, key)
	}
	for _, other := range []string{typUser, typDevice, typInvite, typKey, typList, typDomain, typReport} {
		if other != typ {
			all["typ "+other] = jwsOf(`{"alg":"EdDSA","typ":"`+other+`"}`, payload, key)
		}
	}
	maps.Copy(all, sloppy(good))
	return all
}

// sloppy spells a JWS in other ways that base64 decoders often take.
func sloppy(jws string) map[string]string {
	parts := strings.Split(jws, ".")
	all := map[string]string{"fourth part": jws + ".", "three dots": strings.Replace(jws, ".", "..", 1), "two parts": parts[0] + "." + parts[1],
		"one part": parts[0], "no signature": parts[0] + "." + parts[1] + ".", "short signature": jws[:len(jws)-4], "long signature": jws + "AAAA", "nothing": ""}
	for i, part := range parts {
		replace := func(what, with string) {
			changed := slices.Clone(parts)
			changed[i] = with
			all[fmt.Sprintf("%s in part %d", what, i)] = strings.Join(changed, ".")
		}
		for what, c := range map[string]string{"line end": "\n", "carriage return": "\r", "space": " ", "tab": "\t"} {
			replace(what, part[:4]+c+part[4:])
			replace(what+" behind", part+c)
		}
		replace("padding", part+"=")
		replace("two paddings", part+"==")
		replace("a character more", part+"A")
		if len(part)%4 != 0 { // the last character has bits left over
			last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", part[len(part)-1])
			replace("bits left over", part[:len(part)-1]+"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last|1:last|1+1])
		}
		if other := strings.NewReplacer("-", "+", "_", "/").Replace(part); other != part {
			replace("other alphabet", other)
		}
	}
	return all
}

// membersOf splits a JSON object into its members, as they are written.
func membersOf(tb testing.TB, payload string) (members []string) {
	tb.Helper()
	dec := json.NewDecoder(strings.NewReader(payload))
	must(dec.Token())(tb)
	for dec.More() {
		name := must(dec.Token())(tb).(string)
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			tb.Fatal(err)
		}
		members = append(members, fmt.Sprintf("%q:%s", name, value))
	}
	return members
}

func TestEachSpoiledStatementIsRefusedTwice(t *testing.T) {
	t.Attr("id", "T-vectors")
	n := 0
	for what, s := range someStatements(t) {
		for how, jws := range spoiled(t, s) {
			// What is still a statement after the change says something else, and is signed: an empty label is no spelling.
			mayBe := strings.HasPrefix(how, `empty "label"`) || strings.HasPrefix(how, `empty "folder"`)
			_, err := ParseStatement(jws)
			_, _, other := independent(jws)
			if n++; (err == nil) != (other == nil) || err == nil && !mayBe || err != nil && FaultOf(err) != FaultMalformed {
				t.Errorf("%s, %s: we say %v, the independent verifier %v", what, how, err, other)
			}
		}
	}
	if n < 1000 {
		t.Errorf("only %d spoiled statements", n)
	}
}

// outOfRange has statements of the right form that say what may not be said.
func outOfRange(tb testing.TB) map[string]string {
	good := someStatements(tb)
	all := map[string]string{}
	replace := func(of, old, new string) {
		payload := payloadOf(tb, must(Sign(good[of], keyOf("domain")))(tb))
		if !strings.Contains(payload, old) {
			tb.Fatalf("%s has no %s", of, old)
		}
		all[of+" "+new] = jwsOf(`{"alg":"EdDSA","typ":"`+good[of].typ()+`"}`, strings.Replace(payload, old, new, 1), keyOf("domain"))
	}
	for _, bad := range []string{"Plant", "-plant", "plänt", "pl ant", strings.Repeat("p", 64)} {
		replace("admin", `"plant"`, `"`+bad+`"`)
		replace("list", `"plant"`, `"`+bad+`"`)
	}
	replace("admin", `"admin",`, `"admin","scope":{"devices":["*"],"targets":["*"]},`)
	replace("admin", `"admin"`, `"operator"`)
	replace("admin", `"admin"`, `"root"`)
	replace("operator", `"operator"`, `"admin"`)
	replace("admin", "1803988800", "1803988801") // 366 days and a second
	replace("admin", "1803988800", "0")
	for _, devices := range []string{`"*","north"`, `"north","north"`, `"south","north"`, `""`, `"/north"`, `"north/"`, `"a//b"`, `"..","x"`, `"a/b/c/d/e/f/g/h/i"`,
		`"` + strings.Repeat("0", 32) + `"`, `"-x"`, `"north\\u0020hall"`, `"` + strings.Repeat(strings.Repeat("a", 64)+"/", 4) + `b"`} {
		replace("operator", `["`+someUID+`","north/hall 2"]`, "["+devices+"]")
	}
	for _, target := range []string{"10.0.0.1:0", "10.0.0.1:080", "10.0.0.1:1-65535", "10.0.0.1:5-5", "10.0.0.1:9-5", "10.0.0.1:65536", "10.0.0.1/32:80", "10.0.0.1/24:80",
		"10.0.0.01:80", "fd00::1:80", "[fd00::1]", "[fd00:0::1]:80", "[::ffff:10.0.0.1]:80", "[fe80::1%eth0]:80", "[10.0.0.1]:80", "tcp/10.0.0.1:80", "udp/10.0.0.1",
		"icmp/10.0.0.1:80", "serial/", "serial/PLC", "serial", "Scan", "ping", "plc.factory:80", " 10.0.0.1:80", "10.0.0.1:", ":80", "10.0.0.1:+80", "10.0.0.1:80-", ""} {
		replace("operator", `"192.168.1.0/24:502","[fd00::1]:*","icmp/10.0.0.1","serial/plc","udp/10.0.0.0/8:1-9"`, `"`+target+`"`)
	}
	replace("device", `"north/hall 2"`, `"`+someUID+`"`)
	replace("device", `"press 1"`, `"press\u202e1"`)
	replace("device", `"press 1"`, `"=press"`)
	replace("invite", "1772625600", "1772625601") // 72 hours and a second
	replace("invite", `"exp"`, `"slot":0,"exp"`)
	replace("invite", `"user":"bob"`, `"user":"bob","uid":"`+someUID+`"`)
	replace("invite-device", "1774958400", "1774958401") // 30 days and a second
	replace("invite-device", `"slot":0`, `"slot":4294967296`)
	replace("invite-device", pubOf(tb, "invite").String(), someStatements(tb)["key-device"].(KeyStatement).Key.String())
	replace("key", pubOf(tb, "bob").String(), pubOf(tb, "bob").String()[:43])
	replace("domain", pubOf(tb, "next").String(), pubOf(tb, "domain").String())
	replace("list", "1772366400,", "1772366401,") // later than its serial
	replace("list", "1806580800", "1806580801")   // 396 days and a second
	for _, entries := range []string{`{}`, `{"spki":"` + SPKI{1}.String() + `","all":1}`, `{"user":"bob","all":1}`, `{"user":"bob","all":1,"statements":1,"until":1}`,
		`{"user":"bob","until":1}`, `{"uid":"` + someUID + `","all":1,"until":1}`, `{"uid":"` + someUID + `","all":0}`, `{"spki":"` + strings.Repeat("0", 64) + `"}`,
		`{"user":"bob","all":2,"until":1},{"user":"bob","all":1,"until":1}`, `{"user":"bob","all":1,"until":1},{"user":"bob","all":1,"until":1}`, `null`, `"x"`} {
		replace("list-empty", "[]", "["+entries+"]")
	}
	return all
}

func TestStatementsOutOfRangeAreRefusedTwice(t *testing.T) {
	t.Attr("id", "T-vectors")
	for what, jws := range outOfRange(t) {
		_, err := ParseStatement(jws)
		_, _, other := independent(jws)
		if FaultOf(err) != FaultMalformed || other == nil {
			t.Errorf("%s: we say %v, the independent verifier %v", what, err, other)
		}
	}
}

func TestStatementsHaveTheirSize(t *testing.T) {
	scope := &Scope{[]string{}, []string{}}
	for i := range maxScopeItems {
		scope.Devices = append(scope.Devices, fmt.Sprintf("f%02d", i))
	}
	u := UserStatement{"plant", "bob", RoleOperator, scope, secondNow, serialNow, 0}
	if _, err := Sign(u, keyOf("domain")); err != nil {
		t.Error(err)
	}
	scope.Devices = append(scope.Devices, "g")
	_, err := Sign(u, keyOf("domain"))
	wantFault(t, err, FaultMalformed)
	for i := range scope.Devices[:maxScopeItems] {
		scope.Devices[i] = fmt.Sprintf("f%02d %s", i, strings.Repeat("x", 60))
	}
	scope.Devices = scope.Devices[:maxScopeItems]
	_, err = Sign(u, keyOf("domain")) // 64 items, and over 4 KiB
	wantFault(t, err, FaultMalformed)

	list := ListStatement{"plant", serialNow, secondNow, nil}
	for i := range 480 {
		list.Entries = append(list.Entries, Entry{SPKI: SPKI{byte(i >> 8), byte(i), 1}, Until: secondNow})
	}
	list.Entries = SortEntries(list.Entries)
	if _, err := Sign(list, keyOf("domain")); err != nil {
		t.Errorf("480 keys: %v", err)
	}
	for i := range 60 {
		list.Entries = append(list.Entries, Entry{SPKI: SPKI{byte(i >> 8), byte(i), 2}, Until: secondNow})
	}
	list.Entries = SortEntries(list.Entries)
	_, err = Sign(list, keyOf("domain"))
	wantFault(t, err, FaultMalformed)
}

func TestOnlyEd25519Signs(t *testing.T) {
	_, err := Sign(someStatements(t)["admin"], newP256(t))
	wantFault(t, err, FaultWrongKey)
	for what, s := range map[string]Statement{"no keys": DomainStatement{Domain: "plant", Serial: 1}, "zero": UserStatement{}, "nil entries": ListStatement{"plant", serialNow, secondNow, nil}} {
		if _, err := Sign(s, keyOf("domain")); err == nil {
			t.Errorf("%s: signed", what)
		}
	}
}

func TestNextSerial(t *testing.T) {
	for _, c := range []struct {
		newest, want uint64
		now          time.Time
	}{{0, serialNow, testNow}, {serialNow, serialNow + 1, testNow}, {5, 6, time.Unix(0, 0)}, {0, 1, time.Unix(-5, 0)}, {MaxSerial - 1, MaxSerial, testNow}} {
		if got, err := NextSerial(c.newest, c.now); got != c.want || err != nil {
			t.Errorf("after %d at %v: %d, %v", c.newest, c.now, got, err)
		}
	}
	_, err := NextSerial(MaxSerial, testNow)
	wantFault(t, err, FaultRefused)
}

func TestScopeIsByWholeParts(t *testing.T) {
	uid := must(ParseUID(someUID))(t)
	with := func(devices ...string) UserStatement {
		return UserStatement{Role: RoleOperator, Scope: &Scope{Devices: devices}}
	}
	for _, c := range []struct {
		u      UserStatement
		folder string
		want   bool
	}{
		{with("north/hall"), "north/hall", true}, {with("north/hall"), "north/hall/2", true}, {with("north/hall"), "north/hall2", false},
		{with("north/hall"), "north", false}, {with("north/hall"), "", false}, {with("*"), "", true}, {with(), "north", false}, {with(someUID), "", true},
		{with("0" + someUID[1:]), "", someUID[0] == '0'}, {with("North"), "north", false}, {UserStatement{Role: RoleAdmin}, "north", true},
		{UserStatement{Role: RoleOperator}, "north", false}, {UserStatement{Role: RoleViewer, Scope: &Scope{Devices: []string{"north"}}}, "north/x", true},
	} {
		if c.u.Sees(uid, c.folder) != c.want {
			t.Errorf("%v in %q: %v", c.u.Scope, c.folder, !c.want)
		}
	}
}

func TestTargets(t *testing.T) {
	at := func(service, addr string) Reach { return Reach{Service: service, Addr: netip.MustParseAddrPort(addr)} }
	zone := netip.AddrPortFrom(netip.MustParseAddr("fe80::1%eth0"), 80)
	for _, c := range []struct {
		target string
		reach  Reach
		want   bool
	}{
		{"10.0.0.0/8:502", at("tcp", "10.1.2.3:502"), true}, {"10.0.0.0/8:502", at("tcp", "10.1.2.3:503"), false}, {"10.0.0.0/8:502", at("tcp", "11.1.2.3:502"), false},
		{"10.0.0.0/8:502", at("udp", "10.1.2.3:502"), false}, {"udp/10.0.0.0/8:*", at("udp", "10.1.2.3:9"), true}, {"udp/10.0.0.0/8:*", at("tcp", "10.1.2.3:9"), false},
		{"10.0.0.1:5-7", at("tcp", "[::ffff:10.0.0.1]:7"), true}, {"10.0.0.1:5-7", at("tcp", "10.0.0.1:8"), false}, {"0.0.0.0/0:*", at("tcp", "10.0.0.1:0"), false},
		{"icmp/10.0.0.0/8", at("icmp", "10.9.9.9:0"), true}, {"icmp/10.0.0.0/8", at("tcp", "10.9.9.9:80"), false}, {"icmp/[fd00::1]", at("icmp", "[fd00::1]:0"), true},
		{"[fe80::/10]:*", Reach{Service: "tcp", Addr: zone}, false}, {"icmp/[fe80::/10]", Reach{Service: "icmp", Addr: zone}, false},
		{"serial/plc", Reach{Service: "serial", Name: "plc"}, true}, {"serial/plc", Reach{Service: "serial", Name: "plc2"}, false}, {"scan", Reach{Service: "scan"}, true},
		{"scan", Reach{Service: "broadcast"}, false}, {"broadcast", Reach{Service: "broadcast"}, true}, {"scan", Reach{}, false},
	} {
		target, err := ParseTarget(c.target)
		if err != nil || target.String() != c.target || target.Has(c.reach) != c.want {
			t.Errorf("%s has %+v: %v, %v", c.target, c.reach, !c.want, err)
		}
		u := UserStatement{Role: RoleOperator, Scope: &Scope{Targets: []string{c.target}}}
		viewer := UserStatement{Role: RoleViewer, Scope: u.Scope}
		all := UserStatement{Role: RoleOperator, Scope: &Scope{Targets: []string{"*"}}}
		if u.Reaches(c.reach) != c.want || viewer.Reaches(c.reach) || !all.Reaches(c.reach) || !(UserStatement{Role: RoleAdmin}).Reaches(c.reach) || (UserStatement{}).Reaches(c.reach) {
			t.Errorf("%s: a scope with it, or a role, reaches %+v wrongly", c.target, c.reach)
		}
	}
}

func TestPublicKeysHaveOneSpelling(t *testing.T) {
	k := pubOf(t, "domain")
	if back, err := ParsePublicKey(k.String()); err != nil || back != k || k.SPKI() != must(SPKIOf(keyOf("domain").Public()))(t) {
		t.Errorf("%v, %v", back, err)
	}
	raw := must(base64.RawURLEncoding.DecodeString(k.String()))(t)
	long := bytes.Replace(raw, []byte{0x30, 0x2a}, []byte{0x30, 0x81, 0x2a}, 1) // BER
	for what, bad := range map[string]string{"BER": base64.RawURLEncoding.EncodeToString(long), "more": k.String() + "AAAA", "padding": k.String() + "=", "none": "", "line end": k.String() + "\n"} {
		_, err := ParsePublicKey(bad)
		if FaultOf(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A bit string may leave bits over, and is then moved to the right: the same key, in other bytes.
	shifted := slices.Clone(raw)
	pub := new(big.Int).SetBytes(raw[12:])
	if pub.BitLen() == 256 {
		t.Fatal("this key has no other spelling; take one that begins with a zero bit")
	}
	shifted[11] = 1
	pub.Lsh(pub, 1).FillBytes(shifted[12:])
	_, err := ParsePublicKey(base64.RawURLEncoding.EncodeToString(shifted))
	wantFault(t, err, FaultMalformed)
	if _, err := NewPublicKey("no key"); FaultOf(err) != FaultWrongKey {
		t.Error(err)
	}
	if !(PublicKey{}).SPKI().IsZero() || (PublicKey{}).String() != "" {
		t.Error("no key has a hash")
	}
}
