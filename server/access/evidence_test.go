package access

import (
	"crypto"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// said is a report of a device about a session.
func (s *stage) said(session string, part uint64) identity.Report {
	return identity.Report{Domain: "plant", UID: s.device.id.UID, Session: session, Epoch: 1, User: "admin", Peer: s.admin.spki(), Part: part,
		Begin: time.Now().Unix(), At: time.Now().Unix(), Streams: []identity.Reached{
			{Target: "192.168.1.5:502", Begin: 1, End: 2, Carried: identity.Carried{In: 12, Out: 34, Count: 1}, Reason: "closed"}}}
}

// give sends a report and returns what is answered.
func (s *stage) give(jws string) wire.ReportAck {
	s.t.Helper()
	if err := wire.Write(s.runtime, wire.TypeReport, []byte(jws)); err != nil {
		s.t.Fatal(err)
	}
	var ack wire.ReportAck
	s.runtime.read(wire.TypeReportAck, &ack)
	if ack.Report != wire.ReportID(jws) {
		s.t.Errorf("the answer is about %s", ack.Report)
	}
	return ack
}

func (w *world) reports() (list []store.Record) {
	w.t.Helper()
	for _, r := range w.records(1000) {
		if r.Action == actionSessionReport {
			list = append(list, r)
		}
	}
	return list
}

// A report is in the audit, once, before it is answered, and survives a restart; what another key signed, or what is about
// another's session, leaves nothing.
func TestAReportIsKeptOnceAndAForgedOneNotAtAll(t *testing.T) {
	t.Attr("id", "T-evidence")
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		if !s.runtime.welcome.Reports {
			t.Fatal("the server does not say that it takes reports")
		}
		offer, _ := s.session()
		sign := func(r identity.Report, key crypto.Signer) string { return must(r.Sign(key)).JWS }
		good := sign(s.said(offer.Session, 1), s.device.Key)
		before := len(s.records(1000))
		other := s.addDevice(s.admin, "press 2")
		added := len(s.records(1000)) - before
		change := func(change func(*identity.Report)) string {
			r := s.said(offer.Session, 1)
			change(&r)
			return sign(r, s.device.Key)
		}
		for what, c := range map[string]struct {
			jws  string
			want transport.Reason
		}{
			"no report":              {"a.b.c", transport.Protocol},
			"another device's key":   {sign(s.said(offer.Session, 1), other.Key), transport.WrongKey},
			"the server's key":       {sign(s.said(offer.Session, 1), s.pki.Grant.Key), transport.WrongKey},
			"about another device":   {change(func(r *identity.Report) { r.UID = other.id.UID }), transport.WrongName},
			"of another domain":      {change(func(r *identity.Report) { r.Domain = "other" }), transport.WrongName},
			"of no session":          {change(func(r *identity.Report) { r.Session = strings.Repeat("0", 32) }), transport.NoSession},
			"of another user":        {change(func(r *identity.Report) { r.User = "bob" }), transport.NoSession},
			"of an epoch to come":    {change(func(r *identity.Report) { r.Epoch = 2 }), transport.NoSession},
			"with a flipped payload": {strings.Replace(good, ".eyJkb21haW4", ".eyJkb21haW5", 1), transport.Protocol},
		} {
			if got := s.give(c.jws).Reason; got != c.want {
				t.Errorf("%s: %q, want %q", what, got, c.want)
			}
		}
		if n := len(s.records(1000)); n != before+added {
			t.Errorf("%d records more of refused reports", n-before-added)
		}
		for range 3 {
			if got := s.give(good).Reason; got != "" {
				t.Fatalf("refused: %s", got)
			}
		}
		s.server.endSession(t.Context(), offer.Session, "x", transport.Closed)
		s.runtime.read(wire.TypeEndSession, nil)
		if got := s.give(sign(s.said(offer.Session, 2), s.device.Key)).Reason; got != "" {
			t.Errorf("after the end: %s", got)
		}
		list := s.reports()
		if len(list) != 2 || list[0].Report != good || list[0].Actor != "hawser://plant/user/admin" || list[0].Object != identity.DeviceName("plant", s.device.id.UID).String() ||
			list[0].Domain != "plant" || !strings.Contains(list[0].Detail, offer.Session+" epoch 1 part 1: 1 streams, 12 bytes in, 34 out") {
			t.Fatalf("%+v", list)
		}
		if err := store.VerifyAudit(s.records(1000)); err != nil {
			t.Error(err)
		}
		list[0].Report = list[1].Report
		if sum, _ := api.Record(list[0]).Sum(); sum == list[0].Hash {
			t.Error("the hash does not cover the report")
		}
	})
}

// One device, and one user with its sessions, at the measured rate: what they write in an hour is bounded, and counted.
func TestOneDeviceDoesNotPushOutWhatOthersDid(t *testing.T) {
	t.Attr("id", "T-evidence")
	const rate, long = 361, time.Hour
	var f flaps
	device, user := identity.DeviceName("plant", identity.UID{1}), identity.UserName("plant", "mallory")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	written, counted := map[string]int{}, 0
	note := func(records []store.Record) {
		for _, r := range records {
			written[r.Action]++
			var n int
			var what string
			fmt.Sscanf(strings.NewReplacer("came or went", "came", "times more", "").Replace(r.Detail), "%s %d", &what, &n)
			counted += n
		}
	}
	actions := []string{actionOnline, actionOffline, actionSessionOpen, actionSessionEnd, actionSessionMove, actionEnrollRefused, actionRenew}
	n := rate * int(long/time.Second)
	for i := range n {
		now = now.Add(time.Second / rate)
		r := store.Record{Action: actions[i%len(actions)], Actor: user.String(), Object: device.String()}
		if f.admit(device, r, anyRecords, now) {
			written[r.Action]++
			counted++
		}
		if i%rate == 0 { // each second: nothing is due sooner than a minute after it began
			note(f.due(now))
		}
	}
	now = now.Add(foldLong)
	note(f.due(now))
	all := 0
	for _, k := range slices.Sorted(maps.Keys(written)) {
		all += written[k]
	}
	if counted != n {
		t.Errorf("%d of %d are accounted for", counted, n)
	}
	if most := shareBurst + int(long/shareEvery) + 8*len(actions); all > most {
		t.Errorf("%d records in an hour, want %d at most: %v", all, most, written)
	}
	if f.admit(identity.DeviceName("plant", identity.UID{2}), store.Record{Action: actionOnline}, flapRecords, now); len(f.runs) != 1 {
		t.Errorf("%d runs are remembered", len(f.runs))
	}
	now = now.Add(time.Hour)
	if f.due(now); len(f.runs)+len(f.shares) != 0 {
		t.Errorf("%d runs and %d shares are remembered", len(f.runs), len(f.shares))
	}
	reports := 0
	for range n {
		if now = now.Add(time.Second / rate); f.admitReport(device, now) {
			reports++
		}
	}
	if most := reportBurst + int(long/reportEvery); reports > most || reports < most-1 {
		t.Errorf("%d reports in an hour, want %d", reports, most)
	}
}

// Records are chosen in the database, pages are bounded in bytes, and the owner's word for the devices of a page comes along.
func TestAuditIsChosenByDeviceUserAndTime(t *testing.T) {
	t.Attr("id", "T-evidence")
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.end()
		s.addDevice(s.admin, "press 2")
		bob := s.newUserAs("bob", identity.RoleOperator, nil)
		offer, _ := s.session()
		jws := must(s.said(offer.Session, 1).Sign(s.device.Key)).JWS
		if got := s.give(jws).Reason; got != "" {
			t.Fatal(got)
		}
		time.Sleep(time.Hour)
		since := time.Now().UTC().Format(time.RFC3339)
		s.put(&store.User{Domain: "plant", Name: "later", Created: time.Now()})
		s.server.audit(t.Context(), s.server.record(actionLogin, "198.51.100.7", identity.UserName("plant", "bob"), nil, ""))
		read := func(who *someone, query string) (page api.Records) {
			t.Helper()
			s.call(who, "GET", "/api/v1/audit?limit=1000"+query, nil, &page)
			return page
		}
		device, admin := identity.DeviceName("plant", s.device.id.UID).String(), identity.UserName("plant", "admin").String()
		count := func(query string, wanted func(api.Record) bool) {
			t.Helper()
			all, got := read(s.admin, "").Records, read(s.admin, query).Records
			want := slices.DeleteFunc(slices.Clone(all), func(r api.Record) bool { return !wanted(r) })
			if !slices.Equal(got, want) || len(got) == 0 || len(got) == len(all) {
				t.Errorf("%s: %d records, want %d of %d", query, len(got), len(want), len(all))
			}
		}
		ofAdmin := func(r api.Record) bool { return r.Actor == admin || r.Object == admin }
		count("&device=press+1", func(r api.Record) bool { return r.Object == device })
		count("&device="+s.device.id.UID.String(), func(r api.Record) bool { return r.Object == device })
		count("&user=admin", ofAdmin)
		count("&user=admin&device=press+1", func(r api.Record) bool { return r.Object == device && r.Actor == admin })
		at := must(time.Parse(time.RFC3339, since))
		count("&since="+since, func(r api.Record) bool { return !r.Time.Before(at) })
		for _, r := range read(bob, "&user=bob").Records {
			if r.Actor != identity.UserName("plant", "bob").String() {
				t.Errorf("an operator reads %+v", r)
			}
		}
		for query, want := range map[string]transport.Reason{"&device=press+9": api.NotFound, "&since=yesterday": api.BadRequest, "&user=B+b": api.BadRequest} {
			if got := s.refusedFor(s.admin, "GET", "/api/v1/audit?limit=1000"+query); got != want {
				t.Errorf("%s: %q, want %q", query, got, want)
			}
		}
		if got := s.refusedFor(bob, "GET", "/api/v1/audit?user=admin"); got != transport.Policy {
			t.Errorf("an operator asks for another's: %q", got)
		}
		var names, keys int
		for _, one := range read(s.admin, "&device=press+1").Statements {
			signed := must(identity.ParseStatement(one))
			switch st := signed.Statement.(type) {
			case identity.DeviceStatement:
				if names++; st.Name != "press 1" {
					t.Errorf("what is stated of %s comes along", st.Name)
				}
			case identity.KeyStatement:
				keys++
			}
		}
		if names != 1 || keys == 0 {
			t.Errorf("%d names and %d keys", names, keys)
		}
		var heads api.AuditHeads
		s.call(s.admin, "GET", "/api/v1/audit/heads", nil, &heads)
		h, err := identity.VerifyAuditHead(heads.Heads[0].Proof, s.pki.Roots)
		if err != nil || h.Node != "a1" || h.Seq != heads.Heads[0].Seq || fmt.Sprintf("%x", h.Hash) != heads.Heads[0].Hash {
			t.Errorf("%+v, %v", h, err)
		}
	})
}

// A page of long records ends before it is too long for whoever reads it, and the next one goes on.
func TestAPageOfRecordsIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		const n = 700
		w.update(func(tx *store.Tx) error {
			for range n {
				r := w.server.record(actionSessionReport, "a", identity.DeviceName("plant", identity.UID{1}), nil, "")
				if r.Report = strings.Repeat("x", 4096); tx.Append(r) != nil {
					t.Error("not written")
				}
			}
			return nil
		})
		got, after := 0, ""
		for range 10 {
			var page api.Records
			w.call(admin, "GET", "/api/v1/audit?limit=1000"+after, nil, &page)
			size := 0
			for _, r := range page.Records {
				if r.Action == actionSessionReport {
					got++
				}
				size += len(r.Report)
			}
			if size > maxPageBytes {
				t.Errorf("a page of %d bytes", size)
			}
			if page.Next == "" {
				break
			}
			after = "&after=" + page.Next
		}
		if got != n {
			t.Errorf("%d records on all pages", got)
		}
		var chain api.AuditChain
		w.call(admin, "GET", "/api/v1/audit/chain?limit=1000", nil, &chain)
		if k := len(chain.Links); k < 100 || k >= n {
			t.Errorf("%d links in a page", k)
		}
	})
}

// refusedFor makes a request and returns the reason of its refusal; empty: it is answered.
func (w *world) refusedFor(who *someone, method, path string) transport.Reason {
	w.t.Helper()
	response, raw := w.callRaw(who, method, path, nil)
	var p api.Problem
	if response.StatusCode >= 300 && json.Unmarshal(raw, &p) != nil {
		w.t.Errorf("%s: %s", path, raw)
	}
	return p.Code
}
