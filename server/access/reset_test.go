package access

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// resets is a stage with a directory in which an operator lays domain resets ready.
type resets struct {
	*stage
	dir       string
	old, next *identitytest.Owner
	thief     *identitytest.Owner
	founder   *someone
}

func newResets(t *testing.T) *resets {
	r := &resets{dir: t.TempDir(), next: identitytest.NewOwner("plant"), thief: identitytest.NewOwner("plant"), founder: newSomeone()}
	r.stage = newStage(t, func(c *Config) { c.DomainResets = r.dir })
	r.old = r.owner("plant")
	return r
}

// lay signs a reset and lays it ready.
func (r *resets) lay(domain string, key identity.PublicKey, sequence uint64) (raw []byte) {
	r.t.Helper()
	raw = must(identity.DomainReset{Domain: domain, Key: key, Sequence: sequence}.Sign(r.pki.Root))
	r.file(raw)
	return raw
}

func (r *resets) file(raw []byte) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, "plant"), raw, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// key is the domain key that the store has.
func (r *resets) key() identity.PublicKey {
	d := store.Domain{Name: "plant"}
	r.get(&d)
	return d.Key
}

// comes is a gateway that says hello, and knows this domain key; the server looks for a reset then.
func (r *resets) comes(knows identity.PublicKey) *control {
	h := r.device.hello("0" + newID()[:1])
	h.DomainKey = knows.SPKI()
	c := r.stage.control(r.device, h)
	synctest.Wait()
	return c
}

// rotate is the word of one key that another one takes its place.
func rotate(from, to *identitytest.Owner) string {
	return from.Sign(identity.DomainStatement{Domain: from.Domain, Old: from.Key, New: to.Key, Serial: from.Serial()}).JWS
}

// The founder who has lost the key is turned away, and let in by the same login after the root has spoken. Gateways that are
// there are told at once, and those that come.
func TestTheRootGivesADomainAnotherKey(t *testing.T) {
	t.Attr("id", "T-lost")
	synctest.Test(t, func(t *testing.T) {
		r := newResets(t)
		defer r.stop()
		defer r.relay.Close()
		r.runtime.Close()
		runtime := r.comes(r.old.Key)
		// A thief has been faster: the server follows him, as the old key says.
		r.state("plant", rotate(r.old, r.thief))
		var told wire.Statements
		if runtime.read(wire.TypeStatements, &told); told.DomainReset != nil || len(told.Statements) != 1 {
			t.Errorf("after the thief's change: %+v", told)
		}
		var code identity.Code
		r.update(func(tx *store.Tx) (err error) {
			code, _, err = newCode(tx, identity.KindUser, "plant", "admin", time.Now())
			return err
		})
		r.owners["plant"] = r.next
		body := r.world.founder(code, "admin", r.founder)
		if got := r.code(nil, "POST", "/api/v1/login", body); got != transport.DomainTaken || r.key() != r.thief.Key {
			t.Fatalf("before the reset: %q", got)
		}
		raw := r.lay("plant", r.next.Key, 5)
		var answer api.LoginAnswer
		if status := r.call(nil, "POST", "/api/v1/login", body, &answer); status != 200 || r.key() != r.next.Key {
			t.Fatalf("after the reset: %d", status)
		}
		r.founder.take(wire.Identity{Chain: answer.Chain})
		if runtime.read(wire.TypeStatements, &told); !bytes.Equal(told.DomainReset, raw) || len(told.Statements) != 0 {
			t.Errorf("the gateway is told %+v", told)
		}
		runtime.Close()
		for _, knows := range []*identitytest.Owner{r.old, r.thief} {
			c := r.comes(knows.Key)
			if c.read(wire.TypeStatements, &told); !bytes.Equal(told.DomainReset, raw) {
				t.Errorf("one that comes is told %+v", told)
			}
			c.Close()
		}
		knowing := r.comes(r.next.Key)
		defer knowing.Close()
		r.state("plant", r.next.Lists().JWS)
		var news wire.Statements
		if knowing.read(wire.TypeStatements, &news); news.DomainReset != nil || len(news.Statements) != 1 {
			t.Errorf("one that knows is told %+v", news)
		}
		// Who was stated by the old key is a stranger, and hears why.
		if got := r.code(r.admin, "GET", "/api/v1/devices", nil); got != transport.NotStated {
			t.Errorf("who was stated by the old key: %q", got)
		}
		var all, few api.Statements
		r.call(r.founder, "GET", "/api/v1/statements", nil, &all)
		r.call(r.admin, "GET", "/api/v1/statements", nil, &few)
		if !bytes.Equal(all.DomainReset, raw) || !bytes.Equal(few.DomainReset, raw) || len(few.Statements) != 1 || len(all.Statements) < 4 {
			t.Errorf("the founder gets %d, a stranger %d statements", len(all.Statements), len(few.Statements))
		}
		done := r.records(8)
		if i := slices.IndexFunc(done, func(d store.Record) bool { return d.Action == actionDomainReset }); i < 0 || done[i].Actor != actorOperator || done[i].Domain != "plant" {
			t.Errorf("audit: %+v", done)
		}
	})
	t.Attr("cases", "6")
}

// A reset counts once: the file that lies there does not undo what the new key says, and neither does an older one, in
// whatever order they come and however often the server starts anew.
func TestADomainResetIsAppliedOnce(t *testing.T) {
	t.Attr("id", "T-lost")
	synctest.Test(t, func(t *testing.T) {
		r := newResets(t)
		defer func() { r.stop() }()
		r.relay.Close()
		r.runtime.Close()
		first := r.lay("plant", r.next.Key, 5)
		r.comes(r.old.Key).Close()
		if r.key() != r.next.Key {
			t.Fatal("not taken when a gateway came")
		}
		last := identitytest.NewOwner("plant")
		r.state("plant", rotate(r.next, last))
		unchanged := func(what string) {
			t.Helper()
			r.comes(last.Key).Close()
			if r.key() != last.Key {
				t.Errorf("%s: the key is another one", what)
			}
		}
		unchanged("the same file")
		r.stop()
		r.start()
		unchanged("after a start")
		flipped := bytes.Clone(first)
		flipped[60] ^= 1
		strange := identitytest.New(time.Now())
		for what, raw := range map[string][]byte{
			"lower":              must(identity.DomainReset{Domain: "plant", Key: r.thief.Key, Sequence: 4}.Sign(r.pki.Root)),
			"the same sequence":  must(identity.DomainReset{Domain: "plant", Key: r.thief.Key, Sequence: 5}.Sign(r.pki.Root)),
			"for another domain": must(identity.DomainReset{Domain: "mill", Key: r.thief.Key, Sequence: 9}.Sign(r.pki.Root)),
			"by another root":    must(identity.DomainReset{Domain: "plant", Key: r.thief.Key, Sequence: 9}.Sign(strange.Root)),
			"flipped":            flipped,
			"cut":                first[:80],
			"a mebibyte":         append(bytes.Clone(first), make([]byte, 1<<20)...),
			"empty":              {},
		} {
			r.file(raw)
			unchanged(what)
		}
		// Whoever was away is led all the way.
		c := r.comes(r.old.Key)
		var told wire.Statements
		if c.read(wire.TypeStatements, &told); !bytes.Equal(told.DomainReset, first) || len(told.Statements) != 1 {
			t.Errorf("one that was away is told %d bytes, %d statements", len(told.DomainReset), len(told.Statements))
		}
		c.Close()
		// The next one, laid ready while no server runs.
		r.stop()
		r.lay("plant", r.thief.Key, 6)
		r.start()
		<-r.server.Ready()
		if r.key() != r.thief.Key {
			t.Error("not taken at the start")
		}
		// Files for domains that are none are left alone.
		if err := os.WriteFile(filepath.Join(r.dir, "Not a label"), first, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(r.dir, "nowhere"), must(identity.DomainReset{Domain: "nowhere", Key: r.next.Key, Sequence: 6}.Sign(r.pki.Root)), 0o644); err != nil {
			t.Fatal(err)
		}
		r.server.takeResets(t.Context())
	})
	t.Attr("cases", fmt.Sprint(11))
}
