package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The verifier of this file is written from identity §11 alone and shares no code with the package: it matches the text of
// a payload by patterns, where the package encodes it again. The vectors and each spoiled statement are given to both.

const (
	reLabel   = `[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?`
	reLetter  = `[0-9\p{Latin}\p{Greek}\p{Cyrillic}\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]`
	reName    = reLetter + `(?:(?:` + reLetter + `|[ ._,-]){0,62}(?:` + reLetter + `|[._,-]))?`
	reNumber  = `(?:0|[1-9][0-9]{0,15})`
	reUID     = `[0-9a-f]{32}`
	reKey     = `[A-Za-z0-9_-]{59}(?:[A-Za-z0-9_-]{63})?`
	reItems   = `\[(?:"[^"]+"(?:,"[^"]+")*)?\]`
	reSubject = `(?:"user":"(?P<user>` + reLabel + `)"|"uid":"(?P<uid>` + reUID + `)")`
)

var (
	patterns = map[string]*regexp.Regexp{
		"hawser-user": regexp.MustCompile(`^\{"domain":"(?P<domain>` + reLabel + `)","user":"(?P<user>` + reLabel +
			`)","role":"(?:(?P<role>admin)"|(?P<role2>operator|viewer)","scope":\{"devices":(?P<devices>` + reItems + `),"targets":(?P<targets>` + reItems +
			`)\}),"exp":(?P<exp>` + reNumber + `),"serial":(?P<serial>` + reNumber + `),"seen":(?P<seen>` + reNumber + `)\}$`),
		"hawser-device": regexp.MustCompile(`^\{"domain":"(?P<domain>` + reLabel + `)","uid":"(?P<uid>` + reUID + `)","name":"(?P<name>` + reName +
			`)","folder":"(?P<folder>[^"]*)","serial":(?P<serial>` + reNumber + `),"seen":(?P<seen>` + reNumber + `),"released":(?P<released>true|false)\}$`),
		"hawser-invite": regexp.MustCompile(`^\{"domain":"(?P<domain>` + reLabel + `)",(?:"user":"(?P<user>` + reLabel + `)"|"uid":"(?P<uid>` + reUID +
			`)","slot":(?P<slot>` + reNumber + `)),"key":"(?P<key>` + reKey + `)","exp":(?P<exp>` + reNumber + `),"serial":(?P<serial>` + reNumber + `)\}$`),
		"hawser-key": regexp.MustCompile(`^\{"domain":"(?P<domain>` + reLabel + `)",` + reSubject + `,"key":"(?P<key>` + reKey +
			`)","label":"(?P<label>(?:` + reName + `)?)","serial":(?P<serial>` + reNumber + `)\}$`),
		"hawser-list": regexp.MustCompile(`^\{"domain":"(?P<domain>` + reLabel + `)","serial":(?P<serial>` + reNumber + `),"iat":(?P<iat>` + reNumber +
			`),"entries":\[(?P<entries>[^\]]*)\]\}$`),
		"hawser-domain": regexp.MustCompile(`^\{"domain":"(?P<domain>` + reLabel + `)","old":"(?P<old>` + reKey + `)","new":"(?P<new>` + reKey +
			`)","serial":(?P<serial>` + reNumber + `)\}$`),
	}
	reHeader = regexp.MustCompile(`^\{"alg":"EdDSA","typ":"([a-z-]+)"\}$`)
	rePart   = regexp.MustCompile("^(?:" + reName + ")$")
	reDigits = regexp.MustCompile("^" + reUID + "$")
	reEntry  = regexp.MustCompile(`^\{(?:"spki":"(?P<spki>[0-9a-f]{64})"(?:,"until":(?P<end>` + reNumber + `))?|"user":"` + reLabel +
		`","(?:statements|all)":(?P<below>` + reNumber + `),"until":(?P<until>` + reNumber + `)|"uid":"` + reUID + `","(?:statements|all)":(?P<below2>` + reNumber + `))\}$`)
	reRule = regexp.MustCompile(`^(?:(?:udp/)?(?P<net>[^:\[]+|\[[^\]]+\]):(?P<ports>\*|[1-9][0-9]{0,4}(?:-[1-9][0-9]{0,4})?)|icmp/(?P<echo>[^:\[]+|\[[^\]]+\])|serial/` +
		reLabel + `|scan|broadcast)$`)
)

// independent reads a JWS, and tells what it says by member, or what is wrong with it.
func independent(jws string) (typ string, said map[string]string, err error) {
	parts := strings.Split(jws, ".")
	if len(parts) != 3 {
		return "", nil, fmt.Errorf("%d parts", len(parts))
	}
	var raw [3][]byte
	for i, part := range parts {
		if raw[i], err = plainBase64(part); err != nil {
			return "", nil, err
		}
	}
	header := reHeader.FindSubmatch(raw[0])
	if header == nil || patterns[string(header[1])] == nil || len(raw[2]) != 64 {
		return "", nil, fmt.Errorf("header or signature")
	}
	typ = string(header[1])
	if limit := map[bool]int{true: 65536, false: 4096}[typ == "hawser-list"]; len(jws) > limit {
		return "", nil, fmt.Errorf("too long")
	}
	var anything any
	if err := json.Unmarshal(raw[1], &anything); err != nil {
		return "", nil, err
	}
	said = match(patterns[typ], string(raw[1]))
	if said == nil {
		return "", nil, fmt.Errorf("does not match the pattern")
	}
	return typ, said, limits(typ, said)
}

// plainBase64 decodes by hand: no padding, no other character, zero bits at the end.
func plainBase64(s string) (out []byte, err error) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	var bits, n uint
	for _, c := range []byte(s) {
		v := strings.IndexByte(alphabet, c)
		if v < 0 {
			return nil, fmt.Errorf("no base64url")
		}
		if bits, n = bits<<6|uint(v), n+6; n >= 8 {
			n -= 8
			out = append(out, byte(bits>>n))
			bits &= 1<<n - 1
		}
	}
	if n >= 6 || bits != 0 {
		return nil, fmt.Errorf("bits left over")
	}
	return out, nil
}

func match(re *regexp.Regexp, s string) map[string]string {
	m := re.FindStringSubmatch(s)
	if m == nil {
		return nil
	}
	said := map[string]string{}
	for i, name := range re.SubexpNames() {
		if m[i] != "" {
			said[strings.TrimRight(name, "2")] = m[i]
		}
	}
	return said
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// limits checks what patterns cannot.
func limits(typ string, said map[string]string) error {
	serial, least := number(said["serial"]), int64(1)
	if typ == "hawser-key" {
		least = 0
	}
	if serial < least || serial > 1<<53-1 || number(said["seen"]) > 1<<53-1 || number(said["slot"]) > 1<<32-1 || said["uid"] == strings.Repeat("0", 32) {
		return fmt.Errorf("number out of range")
	}
	days := int64(366)
	if typ == "hawser-invite" {
		days = map[bool]int64{true: 3, false: 30}[said["user"] != ""]
	}
	if exp, ok := said["exp"]; ok && (number(exp) < 1 || number(exp) >= 1<<43 || number(exp)*1000 > serial+days*86_400_000) {
		return fmt.Errorf("ends too late")
	}
	for _, member := range []string{"key", "old", "new"} {
		if k, ok := said[member]; ok && !isKey(k, typ == "hawser-key") {
			return fmt.Errorf("not a key: %s", member)
		}
	}
	if said["old"] != "" && said["old"] == said["new"] {
		return fmt.Errorf("the same key")
	}
	if f, ok := said["folder"]; ok && !isFolder(f) {
		return fmt.Errorf("not a folder")
	}
	if typ == "hawser-list" {
		return entriesLimits(said)
	}
	if !areItems(said["devices"], func(s string) bool {
		return reDigits.MatchString(s) && strings.Trim(s, "0") != "" || isFolder(s)
	}) ||
		!areItems(said["targets"], isTarget) {
		return fmt.Errorf("not a scope")
	}
	return nil
}

// isKey: the DER of an Ed25519 key is these bytes and the key, that of P-256 these and a point.
func isKey(s string, alsoP256 bool) bool {
	der, err := plainBase64(s)
	ed := []byte{0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0}
	p256 := []byte{0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3, 0x42, 0, 4}
	if err == nil && alsoP256 && len(der) == 91 && bytes.HasPrefix(der, p256) {
		_, err = ecdh.P256().NewPublicKey(der[26:]) // a point of the curve
		return err == nil
	}
	return err == nil && len(der) == 44 && bytes.HasPrefix(der, ed)
}

func isFolder(s string) bool {
	if s == "" {
		return true
	}
	parts := strings.Split(s, "/")
	return len(s) <= 256 && len(parts) <= 8 && !reDigits.MatchString(s) &&
		!slices.ContainsFunc(parts, func(p string) bool { return !rePart.MatchString(p) })
}

func areItems(array string, is func(string) bool) bool {
	if array == "" || array == "[]" || array == `["*"]` {
		return true
	}
	items := strings.Split(array[2:len(array)-2], `","`)
	return len(items) <= 64 && slices.IsSorted(items) && len(slices.Compact(slices.Clone(items))) == len(items) &&
		!slices.ContainsFunc(items, func(s string) bool { return !is(s) })
}

func isTarget(s string) bool {
	m := match(reRule, s)
	if m == nil {
		return false
	}
	if network := m["net"] + m["echo"]; network != "" && !isNetwork(network) {
		return false
	}
	from, to, ranged := strings.Cut(m["ports"], "-")
	return number(from) <= 65535 && number(to) <= 65535 && (!ranged || number(from) < number(to) && s[strings.LastIndexByte(s, ':')+1:] != "1-65535")
}

func isNetwork(s string) bool {
	inner := strings.Trim(s, "[]")
	if !strings.Contains(inner, "/") {
		a, err := netip.ParseAddr(inner)
		return err == nil && a.Zone() == "" && a.String() == inner && !a.Is4In6() && a.Is6() == (s != inner)
	}
	p, err := netip.ParsePrefix(inner)
	return err == nil && p.String() == inner && p.Masked() == p && !p.IsSingleIP() && !p.Addr().Is4In6() && p.Addr().Is6() == (s != inner)
}

func entriesLimits(said map[string]string) error {
	iat := number(said["iat"])
	if iat < 1 || iat >= 1<<43 || iat*1000 > number(said["serial"]) {
		return fmt.Errorf("iat")
	}
	last := ""
	for rest := said["entries"]; rest != ""; {
		entry, after, more := strings.Cut(rest, "},{")
		if rest = ""; more {
			entry, rest = entry+"}", "{"+after
		}
		m := match(reEntry, entry)
		if m == nil || entry <= last || strings.Trim(m["spki"], "0") == "" && m["spki"] != "" || strings.Contains(entry, `"uid":"`+strings.Repeat("0", 32)) {
			return fmt.Errorf("entry %s", entry)
		}
		for _, end := range []string{m["end"], m["until"]} {
			if end != "" && (number(end) < 1 || number(end) > iat+396*86400 || number(end) >= 1<<43) {
				return fmt.Errorf("until")
			}
		}
		if below := m["below"]; below != "" && (number(below) < 1 || number(below) > 1<<53-1) {
			return fmt.Errorf("below")
		}
		last = entry
	}
	return nil
}

// independentSigned tells whether a raw Ed25519 key has signed the JWS.
func independentSigned(jws string, pub ed25519.PublicKey) bool {
	i := strings.LastIndexByte(jws, '.')
	signature, err := plainBase64(jws[i+1:])
	return err == nil && ed25519.Verify(pub, []byte(jws[:i]), signature)
}

// jwsOf signs any header and payload.
func jwsOf(header, payload string, key ed25519.PrivateKey) string {
	message := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	return message + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(message)))
}
