package access

import (
	"crypto"
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
		note(f.due(now))
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
