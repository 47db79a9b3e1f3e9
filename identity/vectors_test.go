package identity

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// vectorDir holds what another implementation must agree with; the format is that of identity §9.
const vectorDir = "testdata/vectors"

// vector is one file.
type vector struct {
	fields map[string]string
	pem    []byte
}

func readVector(tb testing.TB, file string) vector {
	tb.Helper()
	head, body, _ := bytes.Cut(must(os.ReadFile(file))(tb), []byte("\n\n"))
	v := vector{map[string]string{}, body}
	for line := range strings.Lines(string(head)) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if !ok {
			tb.Fatalf("%s: no field: %q", file, line)
		}
		v.fields[key] = strings.TrimPrefix(value, " ")
	}
	return v
}

// get returns a field that must be there.
func (v vector) get(tb testing.TB, key string) string {
	tb.Helper()
	value, ok := v.fields[key]
	if !ok {
		tb.Fatalf("no field %s", key)
	}
	return value
}

func (v vector) hex(tb testing.TB, key string) []byte {
	tb.Helper()
	return must(hex.DecodeString(v.get(tb, key)))(tb)
}

func (v vector) roots(tb testing.TB) *Roots {
	tb.Helper()
	return must(ParseRoots(must(os.ReadFile(filepath.Join(vectorDir, v.get(tb, "roots"))))(tb)))(tb)
}

// expect compares the outcome with the field of that name.
func (v vector) expect(tb testing.TB, err error) (success bool) {
	tb.Helper()
	want := v.get(tb, "expect")
	got := "success"
	if err != nil {
		got = string(FaultOf(err))
	}
	if got != want {
		tb.Errorf("got %s (%v), want %s", got, err, want)
	}
	return err == nil
}

// eachVector runs check on the files of one prefix, of which there are at least min.
func eachVector(t *testing.T, prefix string, min int, check func(*testing.T, vector)) {
	files := must(filepath.Glob(filepath.Join(vectorDir, prefix+"-*.txt")))(t)
	if len(files) < min {
		t.Fatalf("%d vectors %s, want %d or more", len(files), prefix, min)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { check(t, readVector(t, file)) })
	}
}

func TestNameVectors(t *testing.T) {
	eachVector(t, "name", 10, func(t *testing.T, v vector) {
		input := must(strconv.Unquote(v.get(t, "input")))(t)
		n, err := ParseName(input)
		if v.expect(t, err) && (n.String() != input || string(n.Kind) != v.get(t, "kind") || n.Domain != v.get(t, "domain") || n.ID != v.get(t, "id")) {
			t.Errorf("got %v", n)
		}
	})
}

func TestCodeVectors(t *testing.T) {
	eachVector(t, "code", 8, func(t *testing.T, v vector) {
		c, err := ParseCode(must(strconv.Unquote(v.get(t, "input")))(t))
		if v.expect(t, err) && (c.String() != v.get(t, "code") || c.LookupID() != v.get(t, "lookup") || fmt.Sprintf("%x", c.Hash()) != v.get(t, "hash")) {
			t.Errorf("got %s, %s, %x", c, c.LookupID(), c.Hash())
		}
	})
}

func TestChainVectors(t *testing.T) {
	seen := map[string]bool{}
	eachVector(t, "chain", 40, func(t *testing.T, v vector) {
		seen[v.get(t, "expect")] = true
		chain, err := ParseChain(v.pem)
		var peer Peer
		if err == nil {
			now := must(time.Parse(time.RFC3339, v.get(t, "now")))(t)
			var want []Kind
			for _, kind := range strings.Fields(v.get(t, "want")) {
				want = append(want, Kind(kind))
			}
			peer, err = Verify(chain, v.roots(t), now, want...)
		}
		if v.expect(t, err) && peer.Name.String() != v.get(t, "name") {
			t.Errorf("got %v", peer.Name)
		}
	})
	for _, class := range []Fault{"success", FaultMalformed, FaultBadName, FaultBadChain, FaultWrongRoot, FaultExpired,
		FaultNotYetValid, FaultWrongKind, FaultWrongKey, FaultBadSignature} {
		if !seen[string(class)] {
			t.Errorf("no vector expects %s", class)
		}
	}
}

func TestSignedTimeVectors(t *testing.T) {
	eachVector(t, "time", 8, func(t *testing.T, v vector) {
		uid := UID(v.hex(t, "uid"))
		server := Peer{Name: must(ParseName(v.get(t, "name")))(t), SPKI: SPKI(v.hex(t, "server"))}
		got, err := VerifySignedTime(v.hex(t, "signed"), v.roots(t), [32]byte(v.hex(t, "nonce")), server, uid)
		if v.expect(t, err) && (got.Time.Format(time.RFC3339Nano) != v.get(t, "time") || fmt.Sprint(got.Sequence) != v.get(t, "sequence")) {
			t.Errorf("got %v", got)
		}
	})
}

func TestFloorResetVectors(t *testing.T) {
	eachVector(t, "reset", 8, func(t *testing.T, v vector) {
		got, err := VerifyFloorReset(v.hex(t, "reset"), v.roots(t), UID(v.hex(t, "uid")))
		if v.expect(t, err) && (got.To.Format(time.RFC3339Nano) != v.get(t, "to") || fmt.Sprint(got.Sequence) != v.get(t, "sequence")) {
			t.Errorf("got %v", got)
		}
	})
}

func TestRefusedKeysVectors(t *testing.T) {
	t.Attr("id", "T-rotate")
	eachVector(t, "refused", 8, func(t *testing.T, v vector) {
		b := v.hex(t, "list")
		got, err := VerifyRefusedKeys(b, v.roots(t))
		var keys []string
		for _, k := range got.Keys {
			keys = append(keys, k.String())
		}
		if v.expect(t, err) && (fmt.Sprint(got.Sequence) != v.get(t, "sequence") || strings.Join(keys, " ") != v.get(t, "keys")) {
			t.Errorf("got %v", got)
		}
		if sequence, list, ok := independentRefused(b, v.roots(t).Certificates()); ok != (err == nil) ||
			ok && (sequence != got.Sequence || strings.Join(list, " ") != v.get(t, "keys")) {
			t.Errorf("the second verifier says %v, %d %v", ok, sequence, list)
		}
	})
}

func TestAuditHeadVectors(t *testing.T) {
	eachVector(t, "audit", 8, func(t *testing.T, v vector) {
		got, err := VerifyAuditHead(v.hex(t, "head"), v.roots(t))
		if v.expect(t, err) && (got.Node != v.get(t, "node") || fmt.Sprint(got.Seq) != v.get(t, "seq") ||
			got.Hash != [32]byte(v.hex(t, "hash")) || got.Time.Format(time.RFC3339Nano) != v.get(t, "time")) {
			t.Errorf("got %v", got)
		}
	})
}
