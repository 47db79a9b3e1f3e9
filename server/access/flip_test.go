package access

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// spoiled is a stage whose store is in a file, where rows can be damaged past the server. Beside "press 1", which has a
// session, there are "press 2", enrolled, "press 3" and "press 5", which wait for their codes, and "press 4", revoked.
type spoiled struct {
	*stage
	file         string
	second, gone *someone
	third, fifth string   // codes
	anna         *someone // another user
	session      string
}

func newSpoiled(t *testing.T) *spoiled {
	t.Helper()
	w := newIdleWorld(t)
	p := &spoiled{stage: &stage{world: w}, file: filepath.Join(t.TempDir(), "store")}
	p.open()
	var err error
	if w.admin, w.relay, err = Bootstrap(t.Context(), w.cfg.Store, "plant", "admin", "r1", time.Now()); err != nil {
		t.Fatal(err)
	}
	w.start()
	t.Cleanup(func() { p.stop() })
	p.admin, p.anna = w.login(), w.newUser("plant", "anna")
	p.device, p.second, p.gone = w.addDevice(p.admin, "press 1"), w.addDevice(p.admin, "press 2"), w.addDevice(p.admin, "press 4")
	p.third, _ = p.addPending(p.admin, "press 3")
	p.fifth, _ = p.addPending(p.admin, "press 5")
	w.call(p.admin, "POST", "/api/v1/devices/press%204/revoke", nil, nil)
	p.carrier = w.enrollRelay()
	p.relay = w.control(p.carrier, relayHello("ab12"))
	p.runtime = w.control(p.device, hello("01"))
	p.runtime.beQuiet()
	_, offer := p.stage.session()
	p.session = offer.Session
	return p
}

func (p *spoiled) open() {
	p.t.Helper()
	st, err := store.Open(p.t.Context(), store.Options{Dir: p.file, Node: "a1"})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { st.Close() })
	p.cfg.Store = st
}

// spoil does to the rows what a bad disk may do.
func (p *spoiled) spoil(statements ...string) {
	p.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(p.file, "store.db"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		result, err := db.Exec(s)
		if err != nil {
			p.t.Fatalf("%s: %v", s, err)
		}
		if n, _ := result.RowsAffected(); n == 0 {
			p.t.Fatalf("%s: nothing was changed", s)
		}
	}
}

// overwrite spoils the page where a table begins.
func (p *spoiled) overwrite(table string) {
	p.t.Helper()
	file := filepath.Join(p.file, "store.db")
	db := must(sql.Open("sqlite", "file:"+file))
	var root, size int64
	err := db.QueryRow("SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name=?", table).Scan(&root, &size)
	if err = errors.Join(err, db.Close()); err != nil {
		p.t.Fatal(err)
	}
	f := must(os.OpenFile(file, os.O_RDWR, 0))
	_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, int(size)), (root-1)*size)
	if err = errors.Join(err, f.Close()); err != nil {
		p.t.Fatal(err)
	}
}

// restart spoils the store between two processes; the clients are gone.
func (p *spoiled) restart(spoil func()) {
	p.t.Helper()
	p.runtime.Close()
	p.relay.Close()
	p.stop()
	if err := p.cfg.Store.Close(); err != nil {
		p.t.Fatal(err)
	}
	spoil()
	p.open()
	p.start()
}

// hello returns what a device that comes is told; empty: welcome.
func (p *spoiled) hello(who *someone) transport.Reason {
	p.t.Helper()
	conn := p.connect(who) // with a signed time
	defer conn.Close()
	wire.WriteJSON(conn, wire.TypeHello, hello("01"))
	if f, err := wire.Read(conn); err == nil && f.Type == wire.TypeWelcome {
		return ""
	} else if err == nil && f.Type == wire.TypeRefuse {
		return f.Refusal().Reason
	}
	return "nothing"
}

func (p *spoiled) renew(who *someone) transport.Reason {
	p.t.Helper()
	_, err := p.ask(p.connect(who), wire.TypeRenew, wire.Renew{CSR: who.CSR()})
	if err == nil {
		return ""
	}
	return transport.ReasonOf(err)
}

func (p *spoiled) enrollWith(code string) transport.Reason {
	p.t.Helper()
	if err := p.enroll(code, newSomeone()); err != nil {
		return transport.ReasonOf(err)
	}
	return ""
}

// said is the reason that each of the clients is told. Empty: it gets what it asks for.
type said struct {
	Hello1, Hello2, HelloGone, Renew1, Renew2 transport.Reason // devices
	Enroll3, Enroll5                          transport.Reason // codes
	Admin, Anna                               transport.Reason // asking for a list
	AdminRenews, Add, Open1, Open2            transport.Reason
}

// healthy is what they are told of a store that is as it was written. Nobody is there as press 2.
func healthy() said { return said{HelloGone: transport.Revoked, Open2: transport.Offline} }

// stopped is what they are told while rows are missing: whoever is known comes in, and nobody gets anything new.
func stopped() said {
	const d = transport.Damaged
	return said{HelloGone: transport.Revoked, Renew1: d, Renew2: d, Enroll3: d, Enroll5: d, AdminRenews: d, Add: d, Open1: d, Open2: d}
}

func (p *spoiled) fatal(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *spoiled) askAll() (got said) {
	p.t.Helper()
	got.Hello1, got.Hello2, got.HelloGone = p.hello(p.device), p.hello(p.second), p.hello(p.gone)
	got.Renew1, got.Renew2 = p.renew(p.device), p.renew(p.second)
	got.Enroll3, got.Enroll5 = p.enrollWith(p.third), p.enrollWith(p.fifth)
	got.Admin = p.code(p.admin, "GET", "/api/v1/devices", nil)
	got.Anna = p.code(p.anna, "GET", "/api/v1/devices", nil)
	got.AdminRenews = p.code(p.admin, "POST", "/api/v1/renew", api.RenewRequest{CSR: p.admin.CSR()})
	_, ninth := p.newDevice(p.admin, "press 9")
	response, raw := p.callRaw(p.admin, "POST", "/api/v1/devices", ninth)
	if response.StatusCode != http.StatusCreated {
		var problem api.Problem
		p.fatal(unmarshal(raw, &problem))
		got.Add = problem.Code
	}
	got.Open2 = p.code(p.admin, "POST", "/api/v1/sessions", api.SessionRequest{Device: "press 2", SessionVersion: wire.SessionVersion})
	if got.Hello1 != "" {
		return got
	}
	p.relay = p.control(p.carrier, relayHello("ab13"))
	p.runtime = p.control(p.device, hello("01"))
	p.runtime.beQuiet()
	defer p.relay.Close()
	defer p.runtime.Close()
	done := p.stage.open(p.admin, "press 1")
	if p.cfg.Store.Health().Granting() == nil && got.Admin == "" {
		p.consent("")
	}
	got.Open1 = (<-done).code
	return got
}

// What was lost grants nothing, a bad row shuts out its subject alone, and whatever is damaged the server starts, signs
// the time, and takes in whom it knows.
func TestDamagedRowsGrantNothing(t *testing.T) {
	const d = transport.Damaged
	with := func(s said, change func(*said)) said { change(&s); return s }
	spki := func(who *someone) string { return who.spki().String() }
	cases := map[string]struct {
		sql    func(p *spoiled) string
		page   string // table whose first page is overwritten
		want   said
		backup bool // alone helps
	}{
		"nothing":             {want: healthy()},
		"lost revocation":     {sql: func(*spoiled) string { return "DELETE FROM revoked" }, want: stopped()},
		"lost device":         {sql: func(*spoiled) string { return "DELETE FROM devices WHERE name='press 2'" }, want: with(stopped(), func(s *said) { s.Hello2 = d })},
		"lost revoked device": {sql: func(*spoiled) string { return "DELETE FROM devices WHERE name='press 4'" }, want: stopped()},
		"lost pending device": {sql: func(*spoiled) string { return "DELETE FROM devices WHERE name='press 3'" }, want: stopped()},
		"lost user":           {sql: func(*spoiled) string { return "DELETE FROM users WHERE name='anna'" }, want: with(stopped(), func(s *said) { s.Anna = d })},
		"lost user key":       {sql: func(p *spoiled) string { return "DELETE FROM user_keys WHERE spki='" + spki(p.anna) + "'" }, want: with(stopped(), func(s *said) { s.Anna = d })},
		"lost codes":          {sql: func(*spoiled) string { return "DELETE FROM codes" }, want: stopped()},
		"lost session":        {sql: func(*spoiled) string { return "DELETE FROM sessions" }, want: stopped()},
		"lost sums":           {sql: func(*spoiled) string { return "DELETE FROM sums WHERE tbl='revoked'" }, want: stopped()},
		"lost audit":          {sql: func(*spoiled) string { return "DELETE FROM audit WHERE seq=3" }, want: healthy()},
		"bad revocation":      {sql: func(*spoiled) string { return "UPDATE revoked SET at=at+1" }, want: stopped()},
		"bad device":          {sql: func(*spoiled) string { return "UPDATE devices SET chain=chain||'x' WHERE name='press 2'" }, want: with(healthy(), func(s *said) { s.Hello2, s.Renew2, s.Open2 = d, d, d })},
		"device not revoked":  {sql: func(*spoiled) string { return "UPDATE devices SET revoked=0 WHERE name='press 4'" }, want: healthy()},
		"bad pending device":  {sql: func(*spoiled) string { return "UPDATE devices SET code_expires=code_expires+1 WHERE name='press 3'" }, want: with(healthy(), func(s *said) { s.Enroll3 = d })},
		"bad code": {sql: func(*spoiled) string {
			return "UPDATE codes SET expires=expires+1 WHERE subject=(SELECT id FROM devices WHERE name='press 5')"
		}, want: with(healthy(), func(s *said) { s.Enroll5 = d })},
		"bad user":               {sql: func(*spoiled) string { return "UPDATE users SET created=1 WHERE name='anna'" }, want: with(healthy(), func(s *said) { s.Anna = d })},
		"bad user key":           {sql: func(p *spoiled) string { return "UPDATE user_keys SET login=login+1 WHERE spki='" + spki(p.anna) + "'" }, want: with(healthy(), func(s *said) { s.Anna = d })},
		"bad session":            {sql: func(*spoiled) string { return "UPDATE sessions SET epoch=7" }, want: healthy()},
		"bad audit":              {sql: func(*spoiled) string { return "UPDATE audit SET detail='?' WHERE seq=3" }, want: healthy()},
		"audit of the year 6000": {sql: func(*spoiled) string { return "UPDATE audit SET at=at+(1<<57) WHERE seq=3" }, want: healthy()},
		"time that is a text":    {sql: func(*spoiled) string { return "UPDATE revoked SET at='never'" }, want: stopped(), backup: true},
		"epoch that is a text":   {sql: func(*spoiled) string { return "UPDATE sessions SET epoch='one'" }, want: stopped(), backup: true},
		"date that is a blob":    {sql: func(*spoiled) string { return "UPDATE devices SET created=x'00' WHERE name='press 4'" }, want: with(stopped(), func(s *said) { s.HelloGone = transport.Revoked; s.Admin, s.Anna = d, d }), backup: true},
		"page of revocations":    {page: "revoked", want: stopped(), backup: true},
		"page of sessions":       {page: "sessions", want: stopped(), backup: true},
		"page of the audit":      {page: "audit", want: stopped(), backup: true},
	}
	t.Attr("id", "S-flip")
	t.Attr("cases", fmt.Sprint(len(cases)))
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newSpoiled(t)
				switch {
				case c.page != "":
					p.restart(func() { p.overwrite(c.page) })
				case c.sql != nil:
					p.restart(func() { p.spoil(c.sql(p)) })
				default:
					p.restart(func() {})
				}
				if got := p.askAll(); got != c.want {
					t.Errorf("got  %+v\nwant %+v", got, c.want)
				}
				switch err := p.cfg.Store.Accept(t.Context()); {
				case c.backup && !errors.Is(err, store.ErrDamaged):
					t.Errorf("accepted: %v", err)
				case c.backup:
				case err != nil:
					t.Error(err)
				case p.renew(p.device) != "":
					t.Error("nothing goes on after an operator has accepted it")
				}
				// Whatever it is, a device can be shut out, if there is a place to write it.
				status := p.call(p.admin, "POST", "/api/v1/devices/press%202/revoke", nil, nil)
				if lost := c.want.Hello2 == d && c.want.Open1 == d; !lost && status != http.StatusOK && c.page == "" {
					t.Errorf("revoke: %d", status)
				}
				if got := p.hello(p.second); status == http.StatusOK && got != transport.Revoked {
					t.Errorf("after it was revoked: %q", got)
				}
			})
		})
	}
}

// Damage that is found while the server runs disturbs nobody who is there; nobody new gets anything, and what ends is ended.
func TestDamageFoundLaterDisturbsNobody(t *testing.T) {
	t.Attr("id", "S-flip")
	synctest.Test(t, func(t *testing.T) {
		p := newSpoiled(t)
		p.relay.beQuiet()
		p.spoil("DELETE FROM revoked", "UPDATE devices SET chain='' WHERE name='press 1'")
		if _, err := p.cfg.Store.ReadAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := (<-p.stage.open(p.admin, "press 1")).code; got != transport.Damaged {
			t.Errorf("open: %q", got)
		}
		if got := (<-p.move(p.admin, p.session, 1)).code; got != transport.Damaged {
			t.Errorf("move: %q", got)
		}
		p.runtime.beQuiet()
		p.relay.beQuiet()
		p.runtime.write(wire.TypeEndSession, wire.EndSession{Session: p.session, Reason: transport.Closed})
		p.runtime.beQuiet()
		if r := p.stored(p.session); r.Ended.IsZero() {
			t.Error("an end was not written")
		}
		if status := p.call(p.admin, "POST", "/api/v1/devices/press%201/revoke", nil, nil); status != http.StatusOK {
			t.Errorf("revoke: %d", status)
		}
		if got := refusal(p.runtime); got != transport.Revoked {
			t.Errorf("who is revoked is told %q", got)
		}
		if err := p.cfg.Store.Accept(t.Context()); err != nil {
			t.Error(err)
		}
		if got := p.renew(p.second); got != "" {
			t.Errorf("renew: %q", got)
		}
	})
}
