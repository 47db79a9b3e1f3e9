package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"

	"hawser/internal/soak"
)

const someChars = "0011ABCDEFGHJKMNPQRSTVWXYZ023456"

// ownerText appends the check character of an owner's code, computed with big numbers.
func ownerText(chars string) string {
	n := new(big.Int)
	for _, c := range chars {
		n.Lsh(n, 5).Add(n, big.NewInt(int64(strings.IndexRune(codeAlphabet, c))))
	}
	n.Add(n, big.NewInt(18))
	return "U" + chars + string("0123456789ABCDEFGHJKMNPQRSTVWXYZ*~$=U"[n.Mod(n, big.NewInt(37)).Int64()])
}

// byHand is HKDF-SHA256 for one block (RFC 5869).
func byHand(secret, info string) []byte {
	sum := func(key []byte, parts ...string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(strings.Join(parts, "")))
		return m.Sum(nil)
	}
	return sum(sum([]byte("hawser code v2"), secret), info, "\x01")
}

func TestOwnerCodesRoundTrip(t *testing.T) {
	t.Attr("id", "T-code")
	for range 200 {
		c := NewOwnerCode()
		s := c.String()
		if len(s) != 42 || s[:2] != "U-" || strings.ContainsAny(s, "*~$=") || ownerText(c.code.chars) != strings.ReplaceAll(s, "-", "") {
			t.Fatalf("%s", s)
		}
		for _, typed := range []string{s, strings.ToLower(s), strings.ReplaceAll(s, "-", ""), " " + strings.ReplaceAll(s, "-", " ") + "\r\n", strings.ReplaceAll(s, "0", "o"), strings.ReplaceAll(s, "1", "l")} {
			if got, err := ParseOwnerCode(typed); err != nil || got != c || !IsOwnerCode(typed) {
				t.Errorf("%q: %v", typed, err)
			}
		}
		if c.LookupID() != s[2:6]+s[7:9] {
			t.Errorf("%s has the lookup id %s", s, c.LookupID())
		}
	}
	if c := (OwnerCode{}); c.String() != "" || c.LookupID() != "" {
		t.Error("the zero code is one")
	}
}

// slips are all texts that one slip of a typing hand makes of a code.
func slips(code string) (typed []string) {
	const keys = checkSymbols + "abcdefghijklmnopqrstuvwxyzILO -.#"
	for i := range len(code) + 1 {
		for _, key := range keys {
			typed = append(typed, code[:i]+string(key)+code[i:])
			if i < len(code) {
				typed = append(typed, code[:i]+string(key)+code[i+1:])
			}
		}
		if i < len(code) {
			typed = append(typed, code[:i]+code[i+1:])
		}
		if i+1 < len(code) {
			typed = append(typed, code[:i]+code[i+1:i+2]+code[i:i+1]+code[i+2:])
		}
	}
	return typed
}

func TestNoSingleSlipChangesTheClass(t *testing.T) {
	t.Attr("id", "T-code")
	n := 0
	for range soak.Or(20, 1000) {
		chars := randomChars()
		for _, code := range []string{withCheck(chars), ownerText(chars)} {
			owners := code[0] == 'U'
			for _, typed := range append(slips(code), code) {
				n++
				server, err1 := ParseCode(typed)
				owner, err2 := ParseOwnerCode(typed)
				if owners && err1 == nil || !owners && err2 == nil {
					t.Fatalf("%s became %s, which is a code of the other class", code, typed)
				}
				if err1 == nil && server.chars != chars || err2 == nil && owner.code.chars != chars {
					t.Fatalf("%s became %s, which is another code", code, typed)
				}
				if err1 == nil && IsOwnerCode(typed) || err2 == nil && !IsOwnerCode(typed) {
					t.Fatalf("%s: the class is not told from the code", typed)
				}
			}
		}
	}
	if n < 100_000 {
		t.Errorf("only %d slips", n)
	}
}

func TestAParserRefusesTheOtherClass(t *testing.T) {
	t.Attr("id", "T-code")
	_, err := ParseCode(NewOwnerCode().String())
	wantFault(t, err, FaultBadCode)
	_, err = ParseOwnerCode(NewCode().String())
	wantFault(t, err, FaultBadCode)
	// The first stage counted characters: 33 after all that it ignores.
	if n := len(strings.ReplaceAll(NewOwnerCode().String(), "-", "")); n != 34 {
		t.Errorf("an owner's code has %d characters, which a first-stage program may take", n)
	}
	for _, bad := range []string{"", "U", "u-", strings.Repeat(" ", 128) + ownerText(someChars), "U" + ownerText(someChars), ownerText(someChars) + "0", strings.Repeat("U", 34), "\xff" + ownerText(someChars)} {
		_, err := ParseOwnerCode(bad)
		wantFault(t, err, FaultBadCode)
	}
}

func TestKeysOfAnOwnerCode(t *testing.T) {
	t.Attr("id", "T-code")
	c := must(ParseOwnerCode(ownerText(someChars)))(t)
	secret := someChars[6:]
	auth := c.Auth()
	if !bytes.Equal(auth[:], byHand(secret, "auth")) {
		t.Error("auth is not that of the specification")
	}
	if AuthHash(auth) != sha256.Sum256(append([]byte("hawser auth v2\x00"), auth[:]...)) {
		t.Error("the stored hash is not that of the specification")
	}
	for _, slot := range []uint32{0, 1, 1<<32 - 1} {
		seed := byHand(secret, "invite"+string(binary.BigEndian.AppendUint32(nil, slot)))
		if !c.InviteKey(slot).Public().(ed25519.PublicKey).Equal(ed25519.NewKeyFromSeed(seed).Public()) {
			t.Errorf("slot %d: not the key of the specification", slot)
		}
	}
	other := must(ParseOwnerCode(ownerText("ZZZZZZ" + secret)))(t)
	if other.Auth() != auth || NewOwnerCode().Auth() == auth {
		t.Error("auth is not of the secret alone")
	}
	var text bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("invited", "code", c)
	if strings.Contains(text.String(), secret[:4]) || !strings.Contains(text.String(), "redacted") {
		t.Errorf("the log has %s", &text)
	}
}

// someInvitation is one with its code, MAC, root and the name that it is for.
func someInvitation(tb testing.TB, what string) (Invitation, OwnerCode, []byte, SPKI, Name) {
	tb.Helper()
	code := must(ParseOwnerCode(ownerText(someChars)))(tb)
	all := someStatements(tb)
	subject := all[what]
	invite := all[map[string]string{"operator": "invite", "device": "invite-device"}[what]].(InviteStatement)
	if what == "device" {
		invite.Slot = 3
	}
	invite.Key = must(NewPublicKey(code.InviteKey(invite.Slot).Public()))(tb)
	i := Invitation{"plant", pubOf(tb, "domain"), must(Sign(subject, keyOf("domain")))(tb), must(Sign(invite, keyOf("domain")))(tb), 77}
	mac := must(i.MAC(code, SPKI{9}))(tb)
	return i, code, mac[:], SPKI{9}, invite.name()
}

func TestMACOfAnInvitation(t *testing.T) {
	t.Attr("id", "T-vectors")
	i, code, mac, root, _ := someInvitation(t, "device")
	m := hmac.New(sha256.New, byHand(someChars[6:], "mac"))
	m.Write([]byte("hawser invite v1\x00"))
	subject, invite := sha256.Sum256([]byte(i.Subject.JWS)), sha256.Sum256([]byte(i.Invite.JWS))
	for _, field := range []string{"device", string(root[:]), "plant", string(keyOf("domain").Public().(ed25519.PublicKey)), someUID, "\x00\x00\x00\x03",
		string(subject[:]), string(invite[:]), "\x00\x00\x00\x00\x00\x00\x00\x4d", string(binary.BigEndian.AppendUint64(nil, secondNow+30*dayS))} {
		m.Write([]byte{0, byte(len(field))})
		m.Write([]byte(field))
	}
	if want := m.Sum(nil); !bytes.Equal(mac, want) {
		t.Errorf("got  %x\nwant %x", mac, want)
	}
	if again := must(i.MAC(code, root))(t); !bytes.Equal(again[:], mac) {
		t.Error("two MACs of one code")
	}
}

func TestAnInvitationIsOpenedByItsCodeAlone(t *testing.T) {
	t.Attr("id", "T-code")
	for _, what := range []string{"operator", "device"} {
		i, code, mac, root, name := someInvitation(t, what)
		key, err := i.Open(code, mac, root, name)
		if err != nil || !key.Public().(ed25519.PublicKey).Equal(code.InviteKey(i.Invite.Statement.(InviteStatement).Slot).Public()) {
			t.Fatalf("%s: %v", what, err)
		}
		resign := func(s Statement, by string) Signed { return must(Sign(s, keyOf(by)))(t) }
		other := func(change func(*Invitation)) Invitation {
			changed := i
			change(&changed)
			return changed
		}
		invite := i.Invite.Statement.(InviteStatement)
		foreign := invite
		foreign.Key = pubOf(t, "thief")
		later := invite
		later.Exp--
		flipped := slices.Clone(mac)
		flipped[31] ^= 1
		wrongKey := other(func(i *Invitation) { i.Invite = resign(foreign, "domain") })
		strangersMAC := must(wrongKey.MAC(code, root))(t) // the owner himself made a mistake
		for how, c := range map[string]struct {
			i    Invitation
			code OwnerCode
			mac  []byte
			root SPKI
			name Name
			want Fault
		}{
			"no MAC":                 {i, code, nil, root, name, FaultBadSignature},
			"MAC cut":                {i, code, mac[:31], root, name, FaultBadSignature},
			"MAC flipped":            {i, code, flipped, root, name, FaultBadSignature},
			"MAC of another code":    {i, NewOwnerCode(), mac, root, name, FaultBadSignature},
			"another root":           {i, code, mac, SPKI{8}, name, FaultBadSignature},
			"another domain key":     {other(func(i *Invitation) { i.Key = pubOf(t, "thief") }), code, mac, root, name, FaultBadSignature},
			"another list":           {other(func(i *Invitation) { i.List++ }), code, mac, root, name, FaultBadSignature},
			"statement signed anew":  {other(func(i *Invitation) { i.Subject = resign(i.Subject.Statement, "next") }), code, mac, root, name, FaultBadSignature},
			"invite that ends later": {other(func(i *Invitation) { i.Invite = resign(later, "domain") }), code, mac, root, name, FaultBadSignature},
			"another domain":         {other(func(i *Invitation) { i.Domain = "mill" }), code, mac, root, name, FaultMalformed},
			"no statement":           {other(func(i *Invitation) { i.Subject = Signed{} }), code, mac, root, name, FaultMalformed},
			"no invite":              {other(func(i *Invitation) { i.Invite = i.Subject }), code, mac, root, name, FaultMalformed},
			"statement of another":   {other(func(i *Invitation) { i.Subject = resign(someStatements(t)["admin"], "domain") }), code, mac, root, name, FaultMalformed},
			"key of no code":         {wrongKey, code, strangersMAC[:], root, name, FaultWrongKey},
			"certificate of another": {i, code, mac, root, UserName("plant", "eve"), FaultNotStated},
			"certificate of nobody":  {i, code, mac, root, Name{}, FaultNotStated},
		} {
			if key, err := c.i.Open(c.code, c.mac, c.root, c.name); FaultOf(err) != c.want || key != crypto.Signer(nil) {
				t.Errorf("%s, %s: %v", what, how, err)
			}
		}
	}
}

// What a server gets and stores of a code, and of its invitation, gives it neither of the other two keys: they are three
// outputs of HKDF. This test holds that no two of them are the same bytes, and that the secret is in none.
func TestWhatAServerHasOfACodeIsNotItsSecret(t *testing.T) {
	t.Attr("id", "T-code")
	i, code, mac, _, _ := someInvitation(t, "device")
	auth, key := code.Auth(), code.derive("mac")
	hash := AuthHash(auth)
	seed := code.InviteKey(3).(ed25519.PrivateKey).Seed()
	seen := strings.Join([]string{code.LookupID(), string(auth[:]), string(hash[:]), string(mac), i.Subject.JWS, i.Invite.JWS}, "\n")
	for what, secret := range map[string]string{"secret": someChars[6:], "key of the MAC": string(key[:]), "invite's key": string(seed)} {
		if strings.Contains(seen, secret) {
			t.Errorf("the server sees the %s", what)
		}
	}
}

func writeOwnerCodes(tb testing.TB) {
	plain := ownerText(someChars)
	c := OwnerCode{Code{someChars}}
	auth, mac := c.Auth(), c.derive("mac")
	for what, typed := range map[string]string{"plain": plain, "shown": c.String(), "lower-case": strings.ToLower(plain), "spaces": " u " + plain[1:9] + "\t" + plain[9:], "letter-o": strings.ReplaceAll(plain, "0", "O")} {
		writeVector(tb, "owner-code-"+what, nil, "", "input", strconv.Quote(typed), "code", c.String(), "lookup", "0011AB", "auth", hex.EncodeToString(auth[:]),
			"hash", fmt.Sprintf("%x", AuthHash(auth)), "mac", hex.EncodeToString(mac[:]), "invite-0", pubText(c.InviteKey(0)), "invite-258", pubText(c.InviteKey(258)))
	}
	for what, bad := range map[string]string{"empty": "", "servers": withCheck(someChars), "servers-with-u": "U" + withCheck(someChars), "without-u": plain[1:], "typo": "U1" + plain[2:],
		"swap": plain[:5] + "BA" + plain[7:], "short": plain[:33], "long": plain + "0", "two-u": "U" + plain} {
		writeVector(tb, "owner-code-bad-"+what, nil, FaultBadCode, "input", strconv.Quote(bad))
	}
	for _, what := range []string{"operator", "device"} {
		i, code, mac, root, name := someInvitation(tb, what)
		write := func(how string, expect Fault, i Invitation, mac []byte, root SPKI, name Name) {
			writeVector(tb, "invitation-"+what+how, nil, expect, "code", code.String(), "root", root.String(), "domain", i.Domain, "domain-key", i.Key.String(),
				"subject", i.Subject.JWS, "invite", i.Invite.JWS, "list", fmt.Sprint(i.List), "mac", hex.EncodeToString(mac), "name", name.String())
		}
		write("", "", i, mac, root, name)
		write("-no-mac", FaultBadSignature, i, nil, root, name)
		write("-other-root", FaultBadSignature, i, mac, SPKI{8}, name)
		write("-other-name", FaultNotStated, i, mac, root, UserName("plant", "eve"))
		i.List++
		write("-other-list", FaultBadSignature, i, mac, root, name)
	}
}

func pubText(key crypto.Signer) string {
	k, err := NewPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	return k.String()
}

func TestOwnerCodeVectors(t *testing.T) {
	t.Attr("id", "T-vectors")
	eachVector(t, "owner-code", 14, func(t *testing.T, v vector) {
		c, err := ParseOwnerCode(must(strconv.Unquote(v.get(t, "input")))(t))
		if !v.expect(t, err) {
			return
		}
		secret := strings.ReplaceAll(v.get(t, "code"), "-", "")[7:33]
		auth := c.Auth()
		for what, pair := range map[string][2]string{"code": {c.String(), v.get(t, "code")}, "lookup": {c.LookupID(), v.get(t, "lookup")},
			"auth": {fmt.Sprintf("%x", auth), v.get(t, "auth")}, "hash": {fmt.Sprintf("%x", AuthHash(auth)), v.get(t, "hash")},
			"mac": {fmt.Sprintf("%x", c.derive("mac")), v.get(t, "mac")}, "auth by hand": {fmt.Sprintf("%x", byHand(secret, "auth")), v.get(t, "auth")},
			"mac by hand": {fmt.Sprintf("%x", byHand(secret, "mac")), v.get(t, "mac")}, "slot 0": {pubText(c.InviteKey(0)), v.get(t, "invite-0")},
			"slot 258 by hand": {pubText(ed25519.NewKeyFromSeed(byHand(secret, "invite\x00\x00\x01\x02"))), v.get(t, "invite-258")}} {
			if pair[0] != pair[1] {
				t.Errorf("%s: got %s, want %s", what, pair[0], pair[1])
			}
		}
	})
}

func TestInvitationVectors(t *testing.T) {
	t.Attr("id", "T-vectors")
	eachVector(t, "invitation", 10, func(t *testing.T, v vector) {
		i := Invitation{v.get(t, "domain"), must(ParsePublicKey(v.get(t, "domain-key")))(t), must(ParseStatement(v.get(t, "subject")))(t),
			must(ParseStatement(v.get(t, "invite")))(t), must(strconv.ParseUint(v.get(t, "list"), 10, 64))(t)}
		code := must(ParseOwnerCode(v.get(t, "code")))(t)
		_, err := i.Open(code, v.hex(t, "mac"), SPKI(v.hex(t, "root")), must(ParseName(v.get(t, "name")))(t))
		v.expect(t, err)
		if other := independentInvitation(t, v); other != v.get(t, "expect") {
			t.Errorf("the independent verifier says %s", other)
		}
	})
}

func FuzzParseOwnerCode(f *testing.F) {
	seeds(f, "owner-code", func(v vector) { f.Add(must(strconv.Unquote(v.get(f, "input")))(f)) })
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseOwnerCode(s)
		if refused(t, err) {
			return
		}
		if back, err := ParseOwnerCode(c.String()); err != nil || back != c {
			t.Errorf("%q came back as %q, %v", s, back, err)
		}
		if _, err := ParseCode(s); err == nil || !IsOwnerCode(s) {
			t.Errorf("%q is of both classes", s)
		}
	})
}
