package access

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/server/store"
	"hawser/transport/api"
)

// BenchmarkWriteBesideForgeries measures how long who writes has to wait, in a domain with 200 users, while four others bring
// statements about themselves that nobody signed who may.
func BenchmarkWriteBesideForgeries(b *testing.B) {
	w := newIdleWorld(b)
	w.server = must(New(w.cfg))
	o := w.owner("plant")
	w.stranger("plant", "eve")
	for i := range 200 {
		w.state("plant", o.UserChain(fmt.Sprintf("user-%d", i), identity.RoleOperator, nil, identitytest.NewKey().Public())...)
	}
	r := request{Request: must(http.NewRequestWithContext(b.Context(), http.MethodPost, "/", nil))}
	r.caller.peer.Name = identity.UserName("plant", "eve")
	body := must(json.Marshal(api.Statements{Statements: forgeries(100)}))
	stop := make(chan struct{})
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r := request{Request: r.Clone(b.Context()), caller: r.caller}
				r.Body = io.NopCloser(bytes.NewReader(body))
				if _, _, err := w.server.postStatements(r); err == nil {
					b.Error("a forgery is kept")
				}
			}
		})
	}
	for b.Loop() {
		err := w.cfg.Store.Update(b.Context(), func(tx *store.Tx) error {
			return tx.Put(&store.User{Domain: "plant", Name: "eve", Created: time.Now()})
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	close(stop)
	running.Wait()
}

// forgeries are keys of eve that another key of hers has signed, which says of itself that it is an admin's.
func forgeries(n int) (texts []string) {
	own := identitytest.NewKey()
	serial := must(identity.NextSerial(0, time.Now()))
	eve := identity.Subject{User: "eve"}
	sign := func(s identity.Statement) { texts = append(texts, must(identity.Sign(s, own)).JWS) }
	for range n {
		sign(identity.KeyStatement{Domain: "plant", Subject: eve, Key: must(identity.NewPublicKey(own.Public())), Serial: serial})
		serial++
	}
	sign(identity.UserStatement{Domain: "plant", User: "eve", Role: identity.RoleAdmin, Exp: int64(serial/1000) + 3600, Serial: serial})
	return texts
}
