package identity

import (
	"bytes"
	"crypto/x509"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// Each target asks the same of a parser: what it takes, it prints again, and takes again as the same; what it refuses, it
// refuses with a fault.

// refused checks a refusal, and tells whether there is one.
func refused(t *testing.T, err error) bool {
	if err != nil && FaultOf(err) == "" {
		t.Errorf("refused without a fault: %v", err)
	}
	return err != nil
}

// seeds adds the inputs of the vectors of one prefix.
func seeds(f *testing.F, prefix string, add func(vector)) {
	for _, file := range must(filepath.Glob(filepath.Join(vectorDir, prefix+"-*.txt")))(f) {
		add(readVector(f, file))
	}
}

func FuzzParseName(f *testing.F) {
	seeds(f, "name", func(v vector) { f.Add(must(strconv.Unquote(v.get(f, "input")))(f)) })
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if !refused(t, err) && n.String() != s {
			t.Errorf("%q came back as %q", s, n)
		}
	})
}

func FuzzParseUID(f *testing.F) {
	f.Add(someUID)
	f.Add("00000000000000000000000000000000")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseUID(s)
		if !refused(t, err) && (u.String() != s || u.IsZero()) {
			t.Errorf("%q came back as %q", s, u)
		}
	})
}

func FuzzParseCode(f *testing.F) {
	seeds(f, "code", func(v vector) { f.Add(must(strconv.Unquote(v.get(f, "input")))(f)) })
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCode(s)
		if refused(t, err) {
			return
		}
		if back, err := ParseCode(c.String()); err != nil || back != c {
			t.Errorf("%q came back as %q, %v", s, back, err)
		}
	})
}

func FuzzParseCSR(f *testing.F) {
	f.Add(must(NewCSR(newKey(f)))(f))
	f.Add(must(NewCSR(newP256(f)))(f))
	f.Add(withAttribute(f))
	f.Add(request(f, newKey(f), x509.CertificateRequest{DNSNames: []string{"x"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		pub, err := ParseCSR(b)
		if refused(t, err) {
			return
		}
		if spki, err := x509.MarshalPKIXPublicKey(pub); err != nil || !bytes.Contains(b, emptyRequest(spki)) {
			t.Errorf("took a request for more than its key: %v", err)
		}
	})
}

func FuzzParseChain(f *testing.F) {
	seeds(f, "chain", func(v vector) { f.Add(v.pem) })
	f.Fuzz(func(t *testing.T, b []byte) {
		chain, err := ParseChain(b)
		if refused(t, err) {
			return
		}
		if len(chain) == 0 || len(chain) > maxChainCerts {
			t.Errorf("%d certificates", len(chain))
		}
		back, err := ParseChain(MarshalChain(chain))
		if err != nil || !slices.EqualFunc(chain, back, (*x509.Certificate).Equal) {
			t.Errorf("another chain came back: %v", err)
		}
		roots, err := NewRoots(chain[len(chain)-1])
		if !refused(t, err) { // whatever it is, to judge it must not panic
			_, err = VerifyIgnoringDates(chain, roots)
			refused(t, err)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add(must(MarshalKey(newKey(f)))(f))
	f.Add(must(MarshalKey(newP256(f)))(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := ParseKey(b)
		if refused(t, err) {
			return
		}
		back, err := ParseKey(must(MarshalKey(key))(t))
		if err != nil || must(SPKIOf(back.Public()))(t) != must(SPKIOf(key.Public()))(t) {
			t.Errorf("another key came back: %v", err)
		}
	})
}

func FuzzVerifyFloorReset(f *testing.F) {
	fuzzReset(f, "reset", func(b []byte, roots *Roots) (FloorReset, error) { return VerifyFloorReset(b, roots, someReset.UID) })
}

func FuzzVerifyRefusedKeys(f *testing.F) {
	var roots *Roots
	signed := map[string]bool{}
	seeds(f, "refused", func(v vector) {
		roots = v.roots(f)
		f.Add(v.hex(f, "list"))
		signed[string(v.hex(f, "list"))] = v.fields["expect"] == "success"
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := VerifyRefusedKeys(b, roots)
		if !refused(t, err) && (!signed[string(b)] || len(got.Keys) == 0 || len(got.Keys) > MaxRefusedKeys) {
			t.Errorf("took %v, which nobody signed", got)
		}
	})
}

// fuzzReset begins with the vectors of a kind of reset. Of what it makes of them nothing is good: nobody has signed it.
func fuzzReset[R any](f *testing.F, kind string, verify func([]byte, *Roots) (R, error)) {
	var roots *Roots
	signed := map[string]bool{}
	seeds(f, kind, func(v vector) {
		roots = v.roots(f)
		f.Add(v.hex(f, "reset"))
		signed[string(v.hex(f, "reset"))] = v.fields["expect"] == "success" || signed[string(v.hex(f, "reset"))]
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := verify(b, roots)
		if !refused(t, err) && !signed[string(b)] {
			t.Errorf("took %v, which nobody signed", got)
		}
	})
}

func FuzzVerifySignedTime(f *testing.F) {
	var roots *Roots
	seeds(f, "time", func(v vector) {
		roots = v.roots(f)
		f.Add(v.hex(f, "signed"))
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := VerifySignedTime(b, roots, someTime.Nonce, asPeer(someTime.Server), someTime.UID)
		if !refused(t, err) && got != someTime {
			t.Errorf("took %v, which nobody signed", got)
		}
	})
}

func FuzzVerifyJoinState(f *testing.F) {
	var roots *Roots
	signed := map[string]bool{}
	seeds(f, "join", func(v vector) {
		roots = v.roots(f)
		f.Add(v.hex(f, "state"))
		signed[string(v.hex(f, "state"))] = v.fields["expect"] == "success"
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := VerifyJoinState(b, roots)
		if !refused(t, err) && !signed[string(b)] {
			t.Errorf("took %v, which nobody signed", got)
		}
	})
}

func FuzzVerifyAuditHead(f *testing.F) {
	var roots *Roots
	signed := map[string]bool{}
	seeds(f, "audit", func(v vector) {
		roots = v.roots(f)
		f.Add(v.hex(f, "head"))
		signed[string(v.hex(f, "head"))] = v.fields["expect"] == "success"
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := VerifyAuditHead(b, roots)
		if !refused(t, err) && !signed[string(b)] {
			t.Errorf("took %v, which nobody signed", got)
		}
	})
}
