package grant_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/server/grant"
	"hawser/transport"
	"hawser/transport/wire"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// infrastructure is one with what signs its grants.
type infrastructure struct {
	*identitytest.PKI
	signer grant.Signer
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newInfrastructure() infrastructure {
	pki := identitytest.New(start)
	return infrastructure{pki, grant.Signer(pki.Grant)}
}

func example() grant.Grant {
	return grant.Grant{
		ID: "000102030405060708090a0b0c0d0e0f", Relay: "r1", Instance: "ab12",
		Session: "5e55", Epoch: 1, Role: wire.RoleManager,
		Holder: identity.SPKI{1}, Peer: identity.SPKI{2},
		Permissions: []string{"tcp", "ping"},
		Issued:      start, Expires: start.Add(grant.Life),
	}
}

func TestGrantRoundTrip(t *testing.T) {
	in := newInfrastructure()
	for _, role := range []wire.Role{wire.RoleManager, wire.RoleRuntime} {
		want := example()
		want.Role = role
		got, err := grant.Parse(must(in.signer.Sign(want)), in.Roots, start)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestGrantIsSignedAlikeForTheSameInput(t *testing.T) {
	in := newInfrastructure()
	if a, b := must(in.signer.Sign(example())), must(in.signer.Sign(example())); a != b {
		t.Errorf("two tokens of one grant: %s, %s", a, b)
	}
}

// A grant holds for Life, and Leeway on either side.
func TestGrantTime(t *testing.T) {
	in := newInfrastructure()
	token := must(in.signer.Sign(example()))
	cases := []struct {
		after time.Duration
		want  transport.Reason
	}{
		{-11 * time.Second, transport.BadGrant},
		{-10 * time.Second, ""},
		{0, ""},
		{69 * time.Second, ""},
		{71 * time.Second, transport.GrantExpired},
		{24 * time.Hour, transport.GrantExpired},
	}
	t.Attr("id", "A1-refuse")
	t.Attr("cases", fmt.Sprint(len(cases)))
	for _, c := range cases {
		_, err := grant.Parse(token, in.Roots, start.Add(c.after))
		if got := transport.ReasonOf(err); got != c.want {
			t.Errorf("after %v: %q (%v), want %q", c.after, got, err, c.want)
		}
	}
}

// token makes a token that no Signer makes.
func token(method jwt.SigningMethod, key any, header map[string]any, claims jwt.MapClaims) string {
	t := jwt.NewWithClaims(method, claims)
	for k, v := range header {
		t.Header[k] = v
	}
	return must(t.SignedString(key))
}

func goodClaims() jwt.MapClaims {
	return jwt.MapClaims{
		"jti": "000102030405060708090a0b0c0d0e0f", "aud": "r1/ab12",
		"iat": start.Unix(), "exp": start.Add(grant.Life).Unix(),
		"session": "5e55", "epoch": 1, "role": "runtime",
		"holder": identity.SPKI{1}.String(), "peer": identity.SPKI{2}.String(),
		"permissions": []string{"tcp"},
	}
}

func header(cert *x509.Certificate) map[string]any {
	return map[string]any{"typ": "hawser-grant", "x5c": []string{base64.StdEncoding.EncodeToString(cert.Raw)}}
}

// Each fault alone makes a good token a bad grant.
func TestGrantFaultsAreRefused(t *testing.T) {
	in, foreign := newInfrastructure(), newInfrastructure()
	stranger := must(identity.NewKey())
	timeCert := must(in.Root.CertifyTimeKey(in.Access, in.signer.Key.Public(), start))
	without := func(claim string) jwt.MapClaims { c := goodClaims(); delete(c, claim); return c }
	with := func(claim string, v any) jwt.MapClaims { c := goodClaims(); c[claim] = v; return c }
	head := func(key string, v any) map[string]any { h := header(in.signer.Cert); h[key] = v; return h }
	eddsa := func(key crypto.Signer, h map[string]any, c jwt.MapClaims) string {
		return token(jwt.SigningMethodEdDSA, key, h, c)
	}
	signed := func(c jwt.MapClaims) string { return eddsa(in.signer.Key, header(in.signer.Cert), c) }

	if _, err := grant.Parse(signed(goodClaims()), in.Roots, start); err != nil {
		t.Fatalf("the token without a fault: %v", err)
	}
	raw := signed(goodClaims())
	dot := strings.LastIndex(raw, ".")
	cases := map[string]string{
		"empty":                  "",
		"not a token":            "a.b.c",
		"too large":              strings.Repeat("x", 8<<10+1),
		"alg none":               token(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, header(in.signer.Cert), goodClaims()),
		"alg HMAC, public key":   token(jwt.SigningMethodHS256, []byte(in.signer.Key.Public().(ed25519.PublicKey)), header(in.signer.Cert), goodClaims()),
		"typ JWT":                eddsa(in.signer.Key, head("typ", "JWT"), goodClaims()),
		"no certificate":         eddsa(in.signer.Key, head("x5c", nil), goodClaims()),
		"certificate not a list": eddsa(in.signer.Key, head("x5c", "x"), goodClaims()),
		"two certificates":       eddsa(in.signer.Key, head("x5c", []string{"", ""}), goodClaims()),
		"certificate no base64":  eddsa(in.signer.Key, head("x5c", []string{"!"}), goodClaims()),
		"certificate no DER":     eddsa(in.signer.Key, head("x5c", []string{"AAAA"}), goodClaims()),
		"foreign root":           eddsa(foreign.signer.Key, header(foreign.signer.Cert), goodClaims()),
		"time key's certificate": eddsa(in.signer.Key, header(timeCert), goodClaims()),
		"root as certificate":    eddsa(in.Root.Key, header(in.Root.Cert), goodClaims()),
		"another key":            eddsa(stranger, header(in.signer.Cert), goodClaims()),
		"signature cut off":      raw[:dot+1],
		"signature padded":       raw + "=",
		"no exp":                 signed(without("exp")),
		"no iat":                 signed(without("iat")),
		"lives an hour":          signed(with("exp", start.Add(time.Hour).Unix())),
		"no aud":                 signed(without("aud")),
		"two aud":                signed(with("aud", []string{"r1/ab12", "r2/ab12"})),
		"aud without instance":   signed(with("aud", "r1")),
		"aud with empty relay":   signed(with("aud", "/ab12")),
		"no jti":                 signed(without("jti")),
		"long jti":               signed(with("jti", strings.Repeat("0", 65))),
		"no session":             signed(without("session")),
		"epoch 0":                signed(with("epoch", 0)),
		"epoch text":             signed(with("epoch", "1")),
		"role relay":             signed(with("role", "relay")),
		"no holder":              signed(without("holder")),
		"holder no hash":         signed(with("holder", "00")),
		"no peer":                signed(without("peer")),
	}
	t.Attr("id", "A1-refuse")
	t.Attr("cases", fmt.Sprint(len(cases)))
	for name, bad := range cases {
		if _, err := grant.Parse(bad, in.Roots, start); transport.ReasonOf(err) != transport.BadGrant {
			t.Errorf("%s: %v, want %s", name, err, transport.BadGrant)
		}
	}
}

// No bit of a token can be changed.
func TestGrantFlippedBitsAreRefused(t *testing.T) {
	in := newInfrastructure()
	good := []byte(must(in.signer.Sign(example())))
	for i := range good {
		b := slices.Clone(good)
		b[i] ^= 1
		if _, err := grant.Parse(string(b), in.Roots, start); transport.ReasonOf(err) != transport.BadGrant {
			t.Fatalf("byte %d changed: %v, want %s", i, err, transport.BadGrant)
		}
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(good)))
}

func FuzzParse(f *testing.F) {
	in := newInfrastructure()
	good := must(in.signer.Sign(example()))
	parts := strings.Split(good, ".")
	for _, seed := range []string{good, "", "..", parts[0] + "..", parts[0] + "." + parts[1] + "."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		g, err := grant.Parse(token, in.Roots, start)
		if err != nil {
			if r := transport.ReasonOf(err); r != transport.BadGrant && r != transport.GrantExpired {
				t.Fatalf("reason %q", r)
			}
			return
		}
		again, err := grant.Parse(must(in.signer.Sign(g)), in.Roots, start)
		if err != nil || !cmp.Equal(g, again) {
			t.Fatalf("parsed again: %v, %v", again, err)
		}
	})
}
