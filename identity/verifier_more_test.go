package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What verifier_test.go is for statements, this is for what is made of them: the root's word on a domain key (identity
// §12.2), the invitation of a code (§13.3) and the union of lists (§16), from the text of the specification alone.

// independentReset says what a domain reset is answered by whoever has pinned these roots, and took the sequence last.
func independentReset(reset, roots []byte, domain string, last uint64) (answer, key string, sequence uint64) {
	if len(reset) != 23+32+32+8+64 || string(reset[:23]) != "hawser domain reset v1\x00" {
		return "malformed", "", 0
	}
	signed := false
	for block, rest := pem.Decode(roots); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err.Error(), "", 0
		}
		root, ok := cert.PublicKey.(ed25519.PublicKey)
		signed = signed || ok && ed25519.Verify(root, reset[:95], reset[95:])
	}
	label := sha256.Sum256([]byte(domain))
	sequence = binary.BigEndian.Uint64(reset[87:95])
	switch {
	case !signed:
		return "bad-signature", "", 0
	case sequence == 0:
		return "malformed", "", 0
	case !bytes.Equal(reset[23:55], label[:]):
		return "not-stated", "", 0
	case sequence <= last:
		return "stale", "", 0
	}
	return "success", fmt.Sprintf("%x", reset[55:87]), sequence
}

// independentInvitation says what an invitation is answered by who has the code and a certificate for name.
func independentInvitation(tb testing.TB, v vector) string {
	secret := strings.ReplaceAll(v.get(tb, "code"), "-", "")[7:33]
	stated, subject, err1 := independent(v.get(tb, "subject"))
	typ, invite, err2 := independent(v.get(tb, "invite"))
	class, id := "user", subject["user"]
	if stated == "hawser-device" {
		class, id = "device", subject["uid"]
	}
	if err1 != nil || err2 != nil || stated != "hawser-"+class || typ != "hawser-invite" ||
		invite["user"]+invite["uid"] != id || subject["domain"] != v.get(tb, "domain") ||
		invite["domain"] != v.get(tb, "domain") {
		return "malformed"
	}
	domainKey := must(plainBase64(v.get(tb, "domain-key")))(tb)
	slot := binary.BigEndian.AppendUint32(nil, uint32(number(invite["slot"])))
	one, two := sha256.Sum256([]byte(v.get(tb, "subject"))), sha256.Sum256([]byte(v.get(tb, "invite")))
	list := must(strconv.ParseUint(v.get(tb, "list"), 10, 64))(tb)
	m := hmac.New(sha256.New, byHand(secret, "mac"))
	m.Write([]byte("hawser invite v1\x00"))
	exp := binary.BigEndian.AppendUint64(nil, uint64(number(invite["exp"])))
	for _, field := range [][]byte{[]byte(class), v.hex(tb, "root"), []byte(subject["domain"]), domainKey[12:], []byte(id),
		slot, one[:], two[:], binary.BigEndian.AppendUint64(nil, list), exp} {
		m.Write(append([]byte{0, byte(len(field))}, field...))
	}
	key := ed25519.NewKeyFromSeed(byHand(secret, "invite"+string(slot))).Public().(ed25519.PublicKey)
	switch {
	case !bytes.Equal(m.Sum(nil), v.hex(tb, "mac")):
		return "bad-signature"
	case !bytes.Equal(must(plainBase64(invite["key"]))(tb)[12:], key):
		return "wrong-key"
	case v.get(tb, "name") != "hawser://"+subject["domain"]+"/"+class+"/"+id:
		return "not-stated"
	}
	return "success"
}

// An independentList is one that counted.
type independentList struct {
	signer      string // hash of the admin's key in hex, or nothing for the domain key
	user        string // whose key it is
	since       int64  // serial of the statement of that key
	serial, iat int64
	entries     []string
}

// strikes tells whether one of some entries strikes who has signed another list.
func strikes(entries []string, by independentList) bool {
	return by.signer != "" && slices.ContainsFunc(entries, func(e string) bool {
		m := match(reEntry, e)
		return m["spki"] == by.signer || strings.HasPrefix(e, `{"user":"`+by.user+`","all":`) && by.since < number(m["below"])
	})
}

// independentUnion gives lists to a verifier who knows some admins, and says what each is answered and what is there
// then. No entry of a vector is over, nor more than there is room for.
func independentUnion(tb testing.TB, domainKey []byte, admins, lists []string) (
	answers []string, entries string, newest, iat int64) {
	var kept []independentList
	least := int64(0) // serial of the newest list of the domain key
	for _, jws := range lists {
		_, said, err := independent(jws)
		if err != nil {
			tb.Fatal(err)
		}
		list := independentList{serial: number(said["serial"]), iat: number(said["iat"])}
		if said["entries"] != "" {
			list.entries = strings.Split(strings.ReplaceAll(said["entries"], "},{", "}\n{"), "\n")
		}
		signed := independentSigned(jws, domainKey)
		for _, admin := range admins {
			typ, key, _ := independent(admin)
			if typ != "hawser-key" || signed || !independentSigned(admin, domainKey) {
				continue
			}
			if der := must(plainBase64(key["key"]))(tb); independentSigned(jws, der[12:]) {
				list.signer, list.user, list.since = fmt.Sprintf("%x", sha256.Sum256(der)), key["user"], number(key["serial"])
			}
		}
		struck := slices.ContainsFunc(kept, func(k independentList) bool { return strikes(k.entries, list) })
		switch {
		case !signed && list.signer == "":
			answers = append(answers, "not-stated")
			continue
		case struck:
			answers = append(answers, "revoked")
			continue
		case list.serial < least:
			answers = append(answers, "stale")
			continue
		}
		if answers = append(answers, "-"); signed {
			least = list.serial
			kept = slices.DeleteFunc(kept, func(k independentList) bool { return k.serial < least || strikes(list.entries, k) })
		}
		kept = append(kept, list)
	}
	var union []string
	for _, list := range kept {
		union, newest, iat = append(union, list.entries...), max(newest, list.serial), max(iat, list.iat)
	}
	slices.Sort(union)
	return answers, "[" + strings.Join(slices.Compact(union), ",") + "]", newest, iat
}
