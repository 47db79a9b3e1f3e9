package provision

import (
	"crypto/x509"
	"fmt"
	"strings"

	"hawser/identity"
)

// Text is the file, as Parse reads it. The certificate comes last, where a person need not scroll past it.
func (f File) Text() []byte {
	var b strings.Builder
	each := func(key string, values ...string) {
		for _, v := range values {
			if v != "" {
				fmt.Fprintf(&b, "%s %s\n", key, v)
			}
		}
	}
	each("access", f.Access...)
	each("code", f.Code)
	if !f.Pin.IsZero() {
		each("pin", f.Pin.String())
	}
	for _, p := range f.Ports {
		each("ports", fmt.Sprint(p))
	}
	each("relay", f.Relays...)
	each("name", f.Name)
	if f.LAN.IsValid() {
		each("lan", f.LAN.String())
	}
	each("time", f.Time...)
	each("agent", f.Agent...)
	if f.Roots != nil {
		b.Write(f.Roots.PEM())
	}
	return []byte(b.String())
}

// pinned reports whether cert has the key that the file pins.
func (f File) pinned(cert *x509.Certificate) bool { return identity.CertSPKI(cert) == f.Pin }
