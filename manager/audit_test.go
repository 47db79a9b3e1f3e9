package manager

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport/api"
)

// auditServer is the audit of one Access Server, which a test may change.
type auditServer struct {
	links  []api.AuditLink
	begins api.AuditLink // the last record that went
	proof  []byte        // the server's word for that
	pki    *identitytest.PKI
}

// cut removes the first n records as the server does.
func (s *auditServer) cut(n int) {
	s.begins, s.links = s.links[n-1], s.links[n:]
	s.proof = s.sign(s.pki, s.begins)
}

func (s *auditServer) sign(by *identitytest.PKI, l api.AuditLink) []byte {
	h := identity.AuditHead{Seq: l.Seq, Hash: [32]byte(must(hex.DecodeString(l.Hash))), Time: time.Now()}
	return must(h.Sign(by.Grant.Key, by.Grant.Cert))
}

// write adds n records; every third is another domain's.
func (s *auditServer) write(t *testing.T, n int) {
	t.Helper()
	for range n {
		last := s.begins
		if len(s.links) > 0 {
			last = s.links[len(s.links)-1]
		}
		r := api.Record{Seq: last.Seq + 1, Time: time.Now().UTC(), Node: "a1", Domain: "plant", Action: "login", Prev: last.Hash}
		r.Hash = must(r.Sum())
		l := api.AuditLink{Seq: r.Seq, Prev: r.Prev, Hash: r.Hash, Record: &r}
		if r.Seq%3 == 0 {
			l.Record = nil
		}
		s.links = append(s.links, l)
	}
}

func (s *auditServer) head() api.AuditHead {
	h := api.AuditHead{Node: "a1", BeginsSeq: s.begins.Seq, BeginsHash: s.begins.Hash, BeginsProof: s.proof}
	if len(s.links) > 0 {
		last := s.links[len(s.links)-1]
		h.Seq, h.Hash = last.Seq, last.Hash
	}
	return h
}

func (s *auditServer) serve(f *fake) {
	f.answer("GET /audit/heads", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(api.AuditHeads{Heads: []api.AuditHead{s.head()}})
	})
	f.answer("GET /audit/chain", s.piece)
}

func (s *auditServer) piece(w http.ResponseWriter, r *http.Request) {
	after := must(strconv.ParseInt(r.URL.Query().Get(api.ParamAfter), 10, 64))
	piece := api.AuditChain{}
	for _, l := range s.links {
		if l.Seq > after && len(piece.Links) < 4 { // pages are short
			piece.Links = append(piece.Links, l)
		}
	}
	json.NewEncoder(w).Encode(piece)
}

// An old word of the server, put back by somebody who has only the database, does not make an empty chain good.
func TestChainThatEndsBeforeItBeginsIsBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		account := f.loggedIn(f.manager())
		s := &auditServer{pki: f.pki}
		s.serve(f)
		s.write(t, 10)
		s.cut(4)
		s.links = nil
		found, err := account.VerifyAudit(t.Context())
		if err != nil || len(found) != 1 || !strings.Contains(found[0].Problem, "removed up to 4") {
			t.Errorf("%+v, %v", found, err)
		}
	})
}

// Whatever is done to records that were there at the last time, or to new ones, is found.
func TestAuditVerificationFindsWhatWasDone(t *testing.T) {
	t.Attr("id", "S-audit")
	drop := func(at int) func(*auditServer) {
		return func(s *auditServer) { s.links = slices.Delete(s.links, at, at+1) }
	}
	change := func(at int) func(*auditServer) {
		return func(s *auditServer) {
			r := *s.links[at].Record
			r.Result = "revoked"
			s.links[at].Record = &r
		}
	}
	cases := map[string]struct {
		tamper func(*auditServer)
		want   string // "": all is well
	}{
		"nothing":                  {func(*auditServer) {}, ""},
		"more was written":         {func(s *auditServer) { s.write(t, 9) }, ""},
		"old records went":         {func(s *auditServer) { s.cut(4) }, ""},
		"all went, and went on":    {func(s *auditServer) { s.write(t, 5); s.cut(14) }, ""},
		"begins later, unsigned":   {func(s *auditServer) { s.cut(4); s.proof = nil }, "after record 4, and the server's word"},
		"begins later, of others":  {func(s *auditServer) { s.cut(4); s.proof = s.sign(identitytest.New(time.Now()), s.begins) }, "the server's word"},
		"begins later than signed": {func(s *auditServer) { s.cut(4); s.begins, s.links = s.links[1], s.links[2:] }, "another record"},
		"signed by another node": {func(s *auditServer) {
			s.cut(4)
			other := *s.pki
			other.Grant.Cert = must(other.Root.CertifyGrantKey(identity.AccessName("a2"), other.Grant.Key.Public(), time.Now()))
			s.proof = s.sign(&other, s.begins)
		}, "another record"},
		"the end cut off":          {func(s *auditServer) { s.links = s.links[:8] }, "record 10 was there"},
		"all cut off":              {func(s *auditServer) { s.links = nil }, "record 10 was there"},
		"cut off, written anew":    {func(s *auditServer) { s.links = s.links[:8]; s.write(t, 4) }, "does not follow record 10"},
		"the last one replaced":    {func(s *auditServer) { s.links = s.links[:9]; s.write(t, 1) }, "record 10 is not the one"},
		"a new one dropped":        {func(s *auditServer) { s.write(t, 5); drop(12)(s) }, "does not follow record 12"},
		"a new one changed":        {func(s *auditServer) { s.write(t, 5); change(12)(s) }, "record 13 of a1 was changed"},
		"another domain's dropped": {func(s *auditServer) { s.write(t, 5); drop(11)(s) }, "does not follow record 11"},
		"the head is made up":      {func(s *auditServer) { s.write(t, 1); s.links[10].Hash = "00" }, "was changed"},
		"fewer than the head says": {func(s *auditServer) {
			s.write(t, 2)
			s.links[11].Seq = 14
		}, "does not follow record 11"},
	}
	t.Attr("cases", fmt.Sprint(len(cases)))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t)
				account := f.loggedIn(f.manager())
				s := &auditServer{pki: f.pki}
				s.serve(f)
				time.Sleep(time.Second)
				s.write(t, 10)
				first, err := account.VerifyAudit(t.Context())
				if err != nil || len(first) != 1 || first[0].Problem != "" || first[0].To != 10 || first[0].From != 1 {
					t.Fatalf("at first: %+v, %v", first, err)
				}
				time.Sleep(time.Second)
				c.tamper(s)
				found, err := account.VerifyAudit(t.Context())
				if err != nil || len(found) != 1 {
					t.Fatalf("%+v, %v", found, err)
				}
				if got := found[0].Problem; (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
					t.Errorf("%q, want %q", got, c.want)
				}
			})
		})
	}
}
