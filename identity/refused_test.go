package identity

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"reflect"
	"slices"
	"testing"
	"time"
)

// someRefused has its keys in order.
var someRefused = RefusedKeys{Keys: []SPKI{{1}, {1, 31: 1}, {0xff}}, Sequence: 0x0102030405060708}

// signRaw has the root sign whatever it is.
func signRaw(tb testing.TB, root *Authority, b []byte) []byte {
	return append(slices.Clone(b), must(root.Key.Sign(nil, b, crypto.Hash(0)))(tb)...)
}

// independentRefused is written from identity §18 alone.
func independentRefused(b []byte, roots []*x509.Certificate) (sequence uint64, keys []string, ok bool) {
	for _, root := range roots {
		key, isEd := root.PublicKey.(ed25519.PublicKey)
		ok = ok || isEd && len(b) > 95 && ed25519.Verify(key, b[:len(b)-64], b[len(b)-64:])
	}
	if !ok || string(b[:23]) != "hawser refused keys v1\x00" || len(b) > 2143 || (len(b)-95)%32 != 0 {
		return 0, nil, false
	}
	for _, c := range b[23:31] {
		sequence = sequence<<8 | uint64(c)
	}
	for rest := b[31 : len(b)-64]; len(rest) > 0; rest = rest[32:] {
		keys = append(keys, hex.EncodeToString(rest[:32]))
	}
	return sequence, keys, slices.IsSorted(keys) && len(slices.Compact(slices.Clone(keys))) == len(keys)
}

func TestRefusedKeysRoundTrip(t *testing.T) {
	t.Attr("id", "T-rotate")
	in := newInfra(t, testNow)
	want := slices.Concat([]byte("hawser refused keys v1\x00"), []byte{1, 2, 3, 4, 5, 6, 7, 8}, []byte{1}, make([]byte, 31),
		[]byte{1}, make([]byte, 30), []byte{1}, []byte{0xff}, make([]byte, 31))
	mixed := RefusedKeys{Keys: []SPKI{{0xff}, {1}, {0xff}, {1, 31: 1}}, Sequence: someRefused.Sequence}
	b := must(mixed.Sign(in.root))(t)
	if len(b) != 191 || MaxRefusedBytes != 2143 || !bytes.Equal(b[:127], want) {
		t.Errorf("got  %x\nwant %x", b, want)
	}
	if got, err := VerifyRefusedKeys(b, in.roots); err != nil || !reflect.DeepEqual(got, someRefused) {
		t.Errorf("%v, %v", got, err)
	}
	for i := range 8 * len(b) {
		flipped := slices.Clone(b)
		flipped[i/8] ^= 1 << (i % 8)
		if _, err := VerifyRefusedKeys(flipped, in.roots); FaultOf(err) == "" {
			t.Fatalf("bit %d flipped is taken", i)
		}
	}
	for what, r := range map[string]RefusedKeys{"none": {}, "65": {Keys: slices.Collect(func(yield func(SPKI) bool) {
		for i := range MaxRefusedKeys + 1 {
			if !yield(SPKI{byte(i)}) {
				return
			}
		}
	})}} {
		if _, err := r.Sign(in.root); FaultOf(err) != FaultMalformed {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := someRefused.Sign(&Authority{Cert: in.root.Cert, Key: newKey(t)}); FaultOf(err) != FaultWrongKey {
		t.Errorf("another key: %v", err)
	}
}

// What is under a refused key is refused everywhere but where the registry's knowledge of the key is the proof. Of several
// lists that with the greatest sequence counts, whatever comes late.
func TestARefusedKeyCountsNoMore(t *testing.T) {
	t.Attr("id", "T-rotate")
	s := newTimeServer(t)
	other := must(s.root.NewIssuing(newKey(t), testNow))(t)
	issue := func(ca *Authority) []*x509.Certificate {
		return must(ca.Issue(Request{Name: DeviceName("plant", UID{1}), Pub: newKey(t).Public(), NotBefore: testNow, NotAfter: testNow.Add(time.Hour)}))(t)
	}
	old, fresh := issue(s.issuing), issue(other)
	grantKey := newKey(t)
	grant := must(s.root.CertifyGrantKey(AccessName("a"), grantKey.Public(), testNow))(t)
	signed := must(someTime.Sign(s.key, s.cert))(t)
	judge := func() (got [5]Fault) {
		_, err := Verify(old, s.roots, testNow)
		got[0] = FaultOf(err)
		_, err = Verify(fresh, s.roots, testNow)
		got[1] = FaultOf(err)
		_, err = VerifyIgnoringDates(old, s.roots)
		got[2] = FaultOf(err)
		_, err = VerifyGrantKey(grant, s.roots, testNow)
		got[3] = FaultOf(err)
		_, err = VerifySignedTime(signed, s.roots, someTime.Nonce, Peer{Name: AccessName("a"), SPKI: someTime.Server}, someTime.UID)
		got[4] = FaultOf(err)
		return got
	}
	if got := judge(); got != [5]Fault{} {
		t.Fatalf("before: %q", got)
	}
	all := RefusedKeys{Keys: []SPKI{CertSPKI(s.issuing.Cert), CertSPKI(grant), CertSPKI(s.cert)}, Sequence: 7}
	all = must(VerifyRefusedKeys(must(all.Sign(s.root))(t), s.roots))(t)
	for _, step := range []struct {
		what string
		list RefusedKeys
		news bool
		want [5]Fault
	}{
		{"all three", all, true, [5]Fault{FaultRefusedKey, "", "", FaultRefusedKey, FaultRefusedKey}},
		{"again", all, false, [5]Fault{FaultRefusedKey, "", "", FaultRefusedKey, FaultRefusedKey}},
		{"an older one", RefusedKeys{Sequence: 6}, false, [5]Fault{FaultRefusedKey, "", "", FaultRefusedKey, FaultRefusedKey}},
		{"a newer one", RefusedKeys{Keys: []SPKI{CertSPKI(other.Cert)}, Sequence: 8}, true, [5]Fault{"", FaultRefusedKey, "", "", ""}},
	} {
		if news := s.roots.Refuse(step.list); news != step.news {
			t.Errorf("%s: news %v", step.what, news)
		}
		if got := judge(); got != step.want {
			t.Errorf("%s: %q, want %q", step.what, got, step.want)
		}
	}
	if n, ok := s.roots.RefusedSequence(); n != 8 || !ok {
		t.Errorf("%d, %v", n, ok)
	}
}
