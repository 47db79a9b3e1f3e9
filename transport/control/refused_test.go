package control

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// refusing signs a list of refused keys with the root of a site.
func (s *site) refusing(sequence uint64, keys ...identity.SPKI) []byte {
	return must(identity.RefusedKeys{Keys: keys, Sequence: sequence}.Sign(s.pki.Root))
}

// A list counts for the connection that brings it, and is handed on to be stored, once. What no pinned root has signed, and
// what is older, changes nothing.
func TestRefusedKeysCountForTheConnectionThatBringsThem(t *testing.T) {
	t.Attr("id", "T-rotate")
	for name, tt := range map[string]struct {
		list  func(s *site) []byte
		want  transport.Reason
		kept  int
		after bool // the list is with a later connection
	}{
		"another key":       {func(s *site) []byte { return s.refusing(1, identity.SPKI{1}) }, "", 1, false},
		"its issuing key":   {func(s *site) []byte { return s.refusing(1, identity.CertSPKI(s.pki.Issuing.Cert)) }, transport.Expired, 1, false},
		"by another root":   {func(s *site) []byte { return newSite(s.t).refusing(1, identity.CertSPKI(s.pki.Issuing.Cert)) }, "", 0, false},
		"bytes":             {func(*site) []byte { return []byte("hawser refused keys v1\x00") }, "", 0, false},
		"an older one late": {func(s *site) []byte { return s.refusing(1, identity.CertSPKI(s.pki.Issuing.Cert)) }, "", 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				kept := 0
				s.client.Refused = func([]byte, identity.RefusedKeys, *identity.Roots) { kept++ }
				connect := func() error {
					conn, err := s.client.Connect(t.Context())
					if err == nil {
						conn.Close()
					}
					return err
				}
				if tt.after {
					s.access.Refused = s.refusing(2, identity.SPKI{1})
					if err := connect(); err != nil {
						t.Fatal(err)
					}
				}
				s.access.Set(func() { s.access.Refused = tt.list(s) })
				for range 2 {
					if err := connect(); transport.ReasonOf(err) != tt.want {
						t.Errorf("%v, want %q", err, tt.want)
					}
				}
				if kept != tt.kept {
					t.Errorf("kept %d times, want %d", kept, tt.kept)
				}
			})
		})
	}
}

// A link that stays up for months learns of it with the signed time of each day.
func TestALinkLearnsOfRefusedKeys(t *testing.T) {
	t.Attr("id", "T-rotate")
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		kept := make(chan uint64, 1)
		s.client.Refused = func(_ []byte, list identity.RefusedKeys, _ *identity.Roots) { kept <- list.Sequence }
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		wait := run(ctx, s.link(ctx), Handler{})
		s.access.Set(func() { s.access.Refused = s.refusing(7, identity.SPKI{1}) })
		begin := time.Now()
		if n := <-kept; n != 7 || time.Since(begin) > 25*time.Hour {
			t.Errorf("%d after %v", n, time.Since(begin))
		}
		cancel()
		if _, err := wait(); err != nil {
			t.Error(err)
		}
	})
}
