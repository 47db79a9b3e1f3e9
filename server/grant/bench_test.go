package grant_test

import (
	"testing"

	"hawser/server/grant"
)

// A relay checks a grant for each end of a session, before it knows who asks: what that costs is what a stranger can
// make it pay.

func BenchmarkSign(b *testing.B) {
	in, g := newInfrastructure(), example()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := in.signer.Sign(g); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	in := newInfrastructure()
	token := must(in.signer.Sign(example()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := grant.Parse(token, in.Roots, start); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseRefuses(b *testing.B) {
	in := newInfrastructure()
	token := must(newInfrastructure().signer.Sign(example())) // of somebody else's infrastructure
	b.ReportAllocs()
	for b.Loop() {
		if _, err := grant.Parse(token, in.Roots, start); err == nil {
			b.Fatal("accepted")
		}
	}
}

func TestGrantCheckAllocatesLittle(t *testing.T) {
	const most = 200
	in := newInfrastructure()
	token := must(in.signer.Sign(example()))
	if n := testing.AllocsPerRun(100, func() { must(grant.Parse(token, in.Roots, start)) }); n > most {
		t.Errorf("the check of a grant allocates %.0f times, at most %d", n, most)
	}
}
