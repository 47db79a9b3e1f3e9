package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
)

func TestKeysRoundTrip(t *testing.T) {
	for _, key := range []crypto.Signer{newKey(t), newP256(t)} {
		b := must(MarshalKey(key))(t)
		for _, text := range [][]byte{b, bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")), append([]byte("\n \n"), b...)} {
			back := must(ParseKey(text))(t)
			if must(SPKIOf(back.Public()))(t) != must(SPKIOf(key.Public()))(t) {
				t.Error("another key came back")
			}
		}
	}
}

func TestOtherKeysAreRefused(t *testing.T) {
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))(t)
	x25519 := must(ecdh.X25519().GenerateKey(rand.Reader))(t)
	for _, key := range []any{rsaKey, p384, x25519} {
		der := must(x509.MarshalPKCS8PrivateKey(key))(t)
		_, err := ParseKey(pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}))
		wantFault(t, err, FaultWrongKey)
	}
	for _, key := range []crypto.Signer{rsaKey, p384} {
		_, err := MarshalKey(key)
		wantFault(t, err, FaultWrongKey)
		_, err = NewCSR(key)
		wantFault(t, err, FaultWrongKey)
		_, err = NewRoot(key, testNow)
		wantFault(t, err, FaultWrongKey)
		_, err = SPKIOf(key.Public())
		wantFault(t, err, FaultWrongKey)
	}
}

func TestParseKeyRefusesAllButOneBlock(t *testing.T) {
	good := string(must(MarshalKey(newKey(t)))(t))
	for what, bad := range map[string]string{
		"empty":     "",
		"two":       good + good,
		"text":      "my key\n" + good,
		"tail":      good + "x",
		"truncated": good[:len(good)/2],
		"header":    strings.Replace(good, "KEY-----\n", "KEY-----\nA: b\n\n", 1),
		"type":      strings.ReplaceAll(good, "PRIVATE KEY", "EC PRIVATE KEY"),
		"long":      strings.Repeat("\n", maxKeyBytes) + good,
		"not DER":   string(pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: []byte("x")})),
	} {
		_, err := ParseKey([]byte(bad))
		if FaultOf(err) != FaultMalformed {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestSPKIIsTheSameOfKeyAndCertificate(t *testing.T) {
	in := newInfra(t, testNow)
	for _, key := range []crypto.Signer{newKey(t), newP256(t)} {
		chain := must(in.issuing.Issue(Request{RelayName("r"), key.Public(), testNow, testNow.Add(day)}))(t)
		if CertSPKI(chain[0]) != must(SPKIOf(key.Public()))(t) {
			t.Error("hashes differ")
		}
	}
}
