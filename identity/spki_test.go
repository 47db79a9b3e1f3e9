package identity_test

import (
	"strings"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
)

func TestPinIsReadAsPeopleTypeIt(t *testing.T) {
	t.Attr("id", "A1-input")
	const digits = "ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34"
	var colons []string
	for i := 0; i < len(digits); i += 2 {
		colons = append(colons, digits[i:i+2])
	}
	for _, typed := range []string{digits, strings.ToUpper(digits), strings.ToUpper(strings.Join(colons, ":")), strings.Join(colons, " ") + "\r\n",
		" " + digits[:32] + "\n" + digits[32:] + "\n", strings.Join(colons, "-")} {
		if got, err := identity.ParsePin(typed); err != nil || got.String() != digits {
			t.Errorf("%q: %s, %v", typed, got, err)
		}
		if typed == digits {
			continue
		}
		if _, err := identity.ParseSPKI(typed); err == nil {
			t.Errorf("%q: a peer may spell it so", typed)
		}
	}
	for typed, want := range map[string]string{
		"": "want 64 hex digits, got 0", digits[:63]: "want 64 hex digits, got 63", digits + "0": "got 65", "xyz": "something else",
		strings.Repeat("0", 64): "zero", strings.Repeat(" ", 300): "too long", "sha256//" + digits: "something else",
	} {
		if got, err := identity.ParsePin(typed); err == nil || !strings.Contains(err.Error(), want) || identity.FaultOf(err) != identity.FaultBadName {
			t.Errorf("%q: %s, %v, want %q", typed, got, err, want)
		}
	}
}

func TestShownRootIsTheOneAtTheEndOfTheChain(t *testing.T) {
	pki := identitytest.New(time.Now())
	chain := pki.Chain(identitytest.NewKey().Public(), pki.Access, -time.Hour, time.Hour)
	roots, err := identity.ShownRoot(chain)
	if err != nil || identity.CertSPKI(roots.Certificates()[0]) != pki.Pin() {
		t.Errorf("%v, %v", roots, err)
	}
	if _, err := identity.ShownRoot(chain[:1]); identity.FaultOf(err) != identity.FaultWrongRoot {
		t.Errorf("a leaf alone: %v", err)
	}
	if _, err := identity.ShownRoot(nil); identity.FaultOf(err) != identity.FaultBadChain {
		t.Errorf("nothing: %v", err)
	}
}
