package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
)

// The form of identity §17. A report is no [Statement]: a device's key signs nothing of an owner's.
const (
	typReport      = "hawser-report"
	maxReportBytes = 4 << 10 // of JWS
	maxTargetBytes = 64
	maxReasonBytes = 32
	// MaxReached is how many streams one report lists: as many as fit into it, however long each is.
	MaxReached = 10
)

// Report is what a device says of one of its sessions, or of a part of it (identity §17). The bytes and the streams of all
// reports about a session add up: each says what came since the one before. Times are seconds since 1970 by the device's
// clock.
type Report struct {
	Domain  string    `json:"domain"`
	UID     UID       `json:"uid"`
	Session string    `json:"session"` // 32 hex digits
	Epoch   uint64    `json:"epoch"`
	User    string    `json:"user"`
	Peer    SPKI      `json:"peer"` // of the key that the user has proven in the session
	Part    uint64    `json:"part"` // of this epoch, from 1
	Begin   int64     `json:"begin"`
	At      int64     `json:"at"`     // when it was signed
	End     int64     `json:"end"`    // 0 while it runs
	Reason  string    `json:"reason"` // what ended it; empty while it runs
	Streams []Reached `json:"streams"`
	More    Carried   `json:"more"`    // streams that found no place in the list
	Refused uint64    `json:"refused"` // streams that were refused
	Lost    uint64    `json:"lost"`    // reports that this process of the device has dropped so far, of all sessions
}

// Reached is a stream to a target, or several to the same one that ended in the same way.
type Reached struct {
	Target string `json:"target"` // as in a scope (identity §11.3), with one address and port
	Begin  int64  `json:"begin"`  // of the first
	End    int64  `json:"end"`    // of the last; 0: they are still open
	Carried
	Reason string `json:"reason"` // how they ended; empty: they are still open
}

// Carried is what streams have carried.
type Carried struct {
	In    uint64 `json:"in"`  // bytes that the target got
	Out   uint64 `json:"out"` // bytes that came from it
	Count uint64 `json:"count"`
}

// Add adds what other streams have carried.
func (c *Carried) Add(more Carried) {
	c.In += more.In
	c.Out += more.Out
	c.Count += more.Count
}

// SignedReport is a report with its signature. Parsing verifies nothing about who signed it.
type SignedReport struct {
	Report
	JWS string
}

// Sign signs r with the key of the device, Ed25519 or P-256. It signs only what [ParseReport] takes. The faults are those
// of ParseReport, and [FaultWrongKey].
func (r Report) Sign(key crypto.Signer) (SignedReport, error) {
	if err := r.check(); err != nil {
		return SignedReport{}, err
	}
	pub, err := NewPublicKey(key.Public())
	if err != nil {
		return SignedReport{}, err
	}
	payload, err := json.Marshal(r)
	if err != nil {
		return SignedReport{}, refuse(FaultMalformed, "encode report: "+err.Error())
	}
	message := reportHeader(pub.alg()) + "." + base64.RawURLEncoding.EncodeToString(payload)
	var signature []byte
	if pub.alg() == algEdDSA {
		signature, err = key.Sign(rand.Reader, []byte(message), crypto.Hash(0)) // Ed25519 hashes by itself
	} else {
		hash := sha256.Sum256([]byte(message))
		if signature, err = key.Sign(rand.Reader, hash[:], crypto.SHA256); err == nil {
			signature, err = plainECDSA(signature)
		}
	}
	if err != nil {
		return SignedReport{}, fmt.Errorf("sign report: %w", err)
	}
	jws := message + "." + base64.RawURLEncoding.EncodeToString(signature)
	if len(jws) > maxReportBytes {
		return SignedReport{}, refuse(FaultMalformed, "sign report: longer than a report may be")
	}
	return SignedReport{r, jws}, nil
}

// ParseReport reads a report in its one spelling (identity §17.1). The fault is [FaultMalformed].
func ParseReport(jws string) (SignedReport, error) {
	bad := func(what string) (SignedReport, error) {
		return SignedReport{}, refuse(FaultMalformed, "parse report: "+what)
	}
	parts := strings.Split(jws, ".")
	if len(jws) > maxReportBytes || len(parts) != 3 {
		return bad("not a compact JWS of at most 4 KiB")
	}
	if parts[0] != reportHeader(algEdDSA) && parts[0] != reportHeader(algES256) {
		return bad("not a header of a report")
	}
	if b, err := strictBase64(parts[2]); err != nil || len(b) != signatureBytes {
		return bad("the signature is not 64 bytes in strict base64url")
	}
	payload, err := strictBase64(parts[1])
	if err != nil {
		return bad("the payload is not strict base64url")
	}
	var r Report
	if err := json.Unmarshal(payload, &r); err != nil {
		return bad("the payload is not what a report says")
	}
	if err := r.check(); err != nil {
		return bad(err.Error())
	}
	// As with statements: encoding/json reads a good deal that is not the one spelling.
	if again, err := json.Marshal(r); err != nil || !bytes.Equal(again, payload) {
		return bad("the payload is not in its one spelling")
	}
	return SignedReport{r, jws}, nil
}

// SignedBy tells whether key has signed it, by the algorithm of that kind of key.
func (s SignedReport) SignedBy(key PublicKey) bool {
	pub, err := x509.ParsePKIXPublicKey([]byte(key.der))
	i := strings.LastIndexByte(s.JWS, '.')
	if err != nil || i < 0 || !strings.HasPrefix(s.JWS, reportHeader(key.alg())+".") {
		return false
	}
	signature, err := strictBase64(s.JWS[i+1:])
	if err != nil || len(signature) != signatureBytes {
		return false
	}
	message := []byte(s.JWS[:i])
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(pub, message, signature)
	case *ecdsa.PublicKey:
		r, v := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
		hash := sha256.Sum256(message)
		return v.Cmp(halfOrder()) <= 0 && ecdsa.Verify(pub, hash[:], r, v)
	}
	return false
}

func (r Report) check() error {
	session := strings.Trim(r.Session, "0123456789abcdef") == "" && len(r.Session) == 32
	switch {
	case r.UID.IsZero() || !session || r.Peer.IsZero() || r.Streams == nil || len(r.Streams) > MaxReached:
		return refuse(FaultMalformed, "a report without device, session, peer or list of streams, or with too many of them")
	case r.Epoch < 1 || r.Part < 1 || max(r.Epoch, r.Part, r.Refused, r.Lost) > MaxSerial:
		return refuse(FaultMalformed, "a report with a number that is too small or too great")
	case r.At < 1 || r.At > maxSeconds:
		return refuse(FaultMalformed, "a report of no time")
	}
	err := firstError(CheckLabel(r.Domain), CheckLabel(r.User), checkSpan(r.Begin, r.End, r.Reason), r.More.check(0))
	for _, s := range r.Streams {
		err = firstError(err, checkTargetText(s.Target), checkSpan(s.Begin, s.End, s.Reason), s.Carried.check(1))
	}
	return err
}

func (c Carried) check(least uint64) error {
	if c.Count < least || max(c.In, c.Out, c.Count) > MaxSerial {
		return refuse(FaultMalformed, "a report with a number that is too small or too great")
	}
	return nil
}

// checkSpan wants an end and its reason, or neither. Which of the two times is greater is not asked: a clock may be set.
func checkSpan(begin, end int64, reason string) error {
	if begin < 1 || begin > maxSeconds || end < 0 || end > maxSeconds || (end == 0) != (reason == "") {
		return refuse(FaultMalformed, "a report with no begin, or an end without its reason")
	}
	if len(reason) > maxReasonBytes || strings.Trim(reason, "abcdefghijklmnopqrstuvwxyz-") != "" {
		return refuse(FaultMalformed, "a report with a reason that is no word")
	}
	return nil
}

// checkTargetText takes whatever needs no escape, so that a service that comes later needs no new form.
func checkTargetText(s string) error {
	printable := strings.IndexFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`"\<>&`, c) }) < 0
	if s == "" || len(s) > maxTargetBytes || !printable {
		return refuse(FaultMalformed, "a report with a target that is no text of 1 to 64 bytes")
	}
	return nil
}

const (
	algEdDSA       = "EdDSA" // RFC 8037
	algES256       = "ES256" // RFC 7518 §3.4
	signatureBytes = 64      // of either
)

// alg is how a key signs reports.
func (k PublicKey) alg() string {
	if _, ok := k.ed25519(); ok {
		return algEdDSA
	}
	return algES256
}

func reportHeader(alg string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"` + alg + `","typ":"` + typReport + `"}`))
}

// plainECDSA makes the two numbers of 32 bytes of a signature in DER. Of the two signatures (r, s) and (r, n-s) that anybody
// can make of one, it takes that with the smaller s: a verifier takes no other, so that there is one text for a report.
func plainECDSA(der []byte) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &sig); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("not a signature of a P-256 key")
	}
	if sig.S.Cmp(halfOrder()) > 0 {
		sig.S.Sub(elliptic.P256().Params().N, sig.S)
	}
	return append(sig.R.FillBytes(make([]byte, 32)), sig.S.FillBytes(make([]byte, 32))...), nil
}

func halfOrder() *big.Int { return new(big.Int).Rsh(elliptic.P256().Params().N, 1) }
