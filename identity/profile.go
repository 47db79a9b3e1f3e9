package identity

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"time"
)

// Lifetimes of identity §4. Leaves live as long as the caller says.
const (
	year = 365 * 24 * time.Hour
	// Machines run for decades, and a gateway must still know the root that it pinned.
	rootLife      = 30 * year
	issuingLife   = 15 * year
	serverKeyLife = 5 * year       // time and grant keys
	backdate      = 24 * time.Hour // for verifiers whose clock is a little behind
)

// usageArc is 2.25.N with a random N below 2²⁸: what parsers read that keep an arc in four groups of seven bits (identity §4).
const usageArc = 261407892

// usage is one of our extended key usages: the last number of its OID. Never reuse one.
type usage int

const (
	usageDevice usage = 1 + iota
	usageUser
	usageRelay
	usageAccess
	usageTime
	usageGrant
)

func (u usage) oid() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{2, 25, usageArc, int(u)}
}

// usageOf returns the usage of a kind's leaves, or 0 for no kind. A usage says by itself of which kind a certificate
// is: a device's is never taken for a server's, whatever its name says.
func usageOf(k Kind) usage {
	switch k {
	case KindDevice:
		return usageDevice
	case KindUser:
		return usageUser
	case KindRelay:
		return usageRelay
	case KindAccess:
		return usageAccess
	}
	return 0
}

// onlyUsage returns the one usage of our arc that a certificate has, or 0 when there are none, several, or
// one that we do not know.
func onlyUsage(cert *x509.Certificate) usage {
	var found usage
	for _, oid := range cert.UnknownExtKeyUsage {
		if len(oid) < 3 || !oid[:3].Equal(usage(0).oid()[:3]) {
			continue
		}
		if found != 0 || len(oid) != 4 || oid[3] < int(usageDevice) || oid[3] > int(usageGrant) {
			return 0
		}
		found = usage(oid[3])
	}
	return found
}

// caTemplate is the profile of both CAs.
func caTemplate(what string, spki SPKI, pathLen int, notBefore, notAfter time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "Hawser " + what + " " + spki.String()[:8]},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            pathLen,
		MaxPathLenZero:        pathLen == 0,
	}
}

// leafTemplate is the profile of all that is not a CA.
func leafTemplate(name Name, use usage, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	uri, err := url.Parse(name.String())
	if err != nil {
		return nil, refuse(FaultBadName, "issue certificate: name is no URI")
	}
	return &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: string(name.Kind) + " " + name.ID}, // for people only
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		UnknownExtKeyUsage:    []asn1.ObjectIdentifier{use.oid()},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{uri},
	}, nil
}

// newSerial returns 128 random bits. Random, so that several servers issue under one root without asking each other.
func newSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return new(big.Int).SetBytes(b[:])
}

const tagURI = 6 // uniformResourceIdentifier, RFC 5280 §4.2.1.6

// nameIn reads the name of a certificate: its subject alternative names hold one URI and nothing else (identity §1).
// It reads the raw extension, since the X.509 parser drops the kinds of names that it does not know and
// rewrites URIs.
func nameIn(cert *x509.Certificate) (Name, error) {
	for _, ext := range cert.Extensions { // the X.509 parser refuses a second one
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		var names []asn1.RawValue
		rest, err := asn1.Unmarshal(ext.Value, &names)
		if err != nil || len(rest) > 0 || len(names) != 1 {
			break
		}
		if n := names[0]; n.Class == asn1.ClassContextSpecific && n.Tag == tagURI && !n.IsCompound {
			return ParseName(string(n.Bytes))
		}
	}
	return Name{}, refuse(FaultBadName, "read name: not exactly one URI")
}
