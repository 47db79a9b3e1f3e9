package agent

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/wire"
)

const sessionID = "00112233445566778899aabbccddeeff"

// takesReports lets the fake server announce that it takes reports; it answers none by itself.
func takesReports(r *rig) { r.access.Welcome.Reports = true }

// report waits for the next report, whose signature must be the gateway's.
func (r *rig) report(l *accesstest.Link, p *process, within time.Duration) identity.SignedReport {
	r.t.Helper()
	for late := time.After(within); ; {
		select {
		case f := <-l.Frames:
			if f.Type != wire.TypeReport {
				continue
			}
			got := must(identity.ParseReport(string(f.Payload)))(r.t)
			if !got.SignedBy(must(identity.NewPublicKey(p.self.Load().Cert.Leaf.PublicKey))(r.t)) {
				r.t.Fatal("signed by somebody else")
			}
			return got
		case <-late:
			r.t.Fatalf("no report within %v; log:\n%s", within, r.notes)
		}
	}
}

// silent wants no report for so long.
func (r *rig) silent(l *accesstest.Link, for_ time.Duration) {
	r.t.Helper()
	for late := time.After(for_); ; {
		select {
		case f := <-l.Frames:
			if f.Type == wire.TypeReport {
				r.t.Fatalf("a report within %v: %s", for_, f.Payload)
			}
		case <-late:
			return
		}
	}
}

func (r *rig) answer(l *accesstest.Link, got identity.SignedReport, reason transport.Reason) {
	r.t.Helper()
	if err := wire.WriteJSON(l, wire.TypeReportAck, wire.ReportAck{Report: wire.ReportID(got.JWS), Reason: reason}); err != nil {
		r.t.Fatal(err)
	}
}

// A session is reported to the byte, and until it is answered, over connections.
func TestASessionIsReportedToTheByteUntilThatIsAnswered(t *testing.T) {
	t.Attr("id", "T-evidence")
	attachedRigWith(t, takesReports, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		s := m.open(l, p, sessionID, "tcp", "ping")
		for range 3 {
			stream, reason := openTCP(r, s, "192.168.10.20:502")
			if reason != "" {
				t.Fatal(reason)
			}
			echoes(t, stream)
			stream.Close()
		}
		if _, reason := openTCP(r, s, "192.168.99.1:502"); reason != transport.Policy {
			t.Fatalf("forbidden: %q", reason)
		}
		synctest.Wait()
		s.Close()
		got := r.report(l, p, time.Second)
		if got.UID != testUID || got.Domain != "plant" || got.Session != sessionID || got.Epoch != 1 || got.Part != 1 || got.User != "ann" ||
			got.Peer != identity.CertSPKI(m.cert.Leaf) || got.Reason != "closed" || got.End == 0 || got.Refused != 1 || got.Lost != 0 || got.More.Count != 0 {
			t.Errorf("%+v", got.Report)
		}
		var sum identity.Carried
		for _, e := range got.Streams {
			if e.Target != "192.168.10.20:502" || e.Reason != "closed" || e.Begin < got.Begin || e.End < e.Begin {
				t.Errorf("%+v", e)
			}
			sum.Add(e.Carried)
		}
		if (sum != identity.Carried{In: 330_000, Out: 330_000, Count: 3}) || len(got.Streams) != 3 {
			t.Errorf("%+v in %d entries", sum, len(got.Streams))
		}
		// Nobody answers: it comes again, here and on the next connection.
		if again := r.report(l, p, reportRetry+time.Second); again.JWS != got.JWS {
			t.Error("another one comes")
		}
		r.access.Drop()
		l = <-r.access.Links
		if again := r.report(l, p, time.Second); again.JWS != got.JWS {
			t.Error("another one comes")
		}
		r.answer(l, got, "")
		r.silent(l, 3*time.Hour)
		if s := p.reports.first(); s != "" {
			t.Error("it is kept")
		}
	})
}

// A long session is reported each hour, and the parts add up.
func TestALongSessionIsReportedEachHour(t *testing.T) {
	t.Attr("id", "T-evidence")
	attachedRigWith(t, takesReports, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		s := m.open(l, p, sessionID, "tcp")
		stream, reason := openTCP(r, s, "192.168.10.20:502")
		if reason != "" {
			t.Fatal(reason)
		}
		say := func(n int) {
			stream.Write(make([]byte, n))
			io.ReadFull(stream, make([]byte, n))
			synctest.Wait()
		}
		say(1000)
		r.silent(l, reportEvery-time.Minute)
		first := r.report(l, p, 2*time.Minute)
		r.answer(l, first, "")
		say(30)
		second := r.report(l, p, reportEvery+lookEvery)
		r.answer(l, second, transport.NoSession)
		say(4)
		stream.CloseWrite()
		io.Copy(io.Discard, stream)
		s.Close()
		last := r.report(l, p, time.Second)
		r.answer(l, last, "")
		for i, want := range []identity.Report{{Part: 1}, {Part: 2}, {Part: 3, Lost: 1, Reason: "closed"}} {
			got := []identity.SignedReport{first, second, last}[i]
			n := []uint64{1000, 30, 4}[i]
			if got.Part != want.Part || got.Lost != want.Lost || got.Reason != want.Reason || (got.End == 0) != (want.Reason == "") || len(got.Streams) != 1 ||
				got.Streams[0].Carried != (identity.Carried{In: n, Out: n, Count: 1}) || (got.Streams[0].End == 0) != (want.Reason == "") {
				t.Errorf("part %d: %+v", i+1, got.Report)
			}
		}
	})
}

// Without a word of the server none is sent: one of before would end the connection at a frame that it does not know.
func TestNoReportToAServerThatTakesNone(t *testing.T) {
	attachedRig(t, func(r *rig, p *process, l *accesstest.Link, m *manager) {
		m.open(l, p, sessionID, "tcp").Close()
		r.silent(l, time.Hour)
	})
}

// Ten thousand connections make a few entries, and a sweep over a network cannot hide behind itself.
func TestWhatIsKeptOfASessionIsBounded(t *testing.T) {
	t.Attr("id", "T-evidence")
	one := func(target string, reason transport.Reason) identity.Reached {
		return identity.Reached{Target: target, Begin: 1, End: 2, Carried: identity.Carried{In: 3, Out: 4, Count: 1}, Reason: string(reason)}
	}
	total := func(p page) (sum identity.Carried) {
		sum = p.more
		for _, e := range p.entries {
			sum.Add(e.Carried)
		}
		return sum
	}
	var web page
	for range 10_000 {
		web.add(one("192.168.10.20:80", transport.Closed))
	}
	web.add(one("192.168.10.20:80", transport.Reset))
	if len(web.entries) != sameEntries+1 || web.more.Count != 0 || total(web) != (identity.Carried{In: 30_003, Out: 40_004, Count: 10_001}) {
		t.Errorf("%d entries, %+v", len(web.entries), total(web))
	}
	var sweep page
	for i := range 10_000 {
		sweep.add(one(fmt.Sprintf("10.0.%d.%d:502", i/256, i%256), transport.Closed))
	}
	if len(sweep.entries) != maxEntries || sweep.more.Count != 10_000-maxEntries || total(sweep) != (identity.Carried{In: 30_000, Out: 40_000, Count: 10_000}) {
		t.Errorf("%d entries, %+v", len(sweep.entries), total(sweep))
	}
	if sweep.parts() != 5 || (page{}).parts() != 1 {
		t.Errorf("%d parts", sweep.parts())
	}
}

// One user with very many sessions displaces his own reports, and how many went is said.
func TestReportsThatWaitAreBounded(t *testing.T) {
	t.Attr("id", "T-evidence")
	key, spki := must(identity.NewKey())(t), identity.SPKI{1}
	q := &reports{bell: wait.NewBell(), owner: spki}
	r := identity.Report{Domain: "plant", UID: testUID, Session: sessionID, Epoch: 1, Part: 1, Peer: spki, Begin: 1, At: 1, End: 1, Reason: "closed", Streams: []identity.Reached{}}
	r.User = "ann"
	if err := q.sign(r, key, spki); err != nil {
		t.Fatal(err)
	}
	r.User = "bob"
	for range 1000 {
		if err := q.sign(r, key, spki); err != nil {
			t.Fatal(err)
		}
	}
	var ann int
	for _, one := range q.list {
		if one.user == "ann" {
			ann++
		}
	}
	last := must(identity.ParseReport(q.list[len(q.list)-1].jws))(t)
	if len(q.list) != maxReports || ann != 1 || q.lost != 1001-maxReports || last.Lost != q.lost {
		t.Errorf("%d wait, %d of ann, %d lost, %d said", len(q.list), ann, q.lost, last.Lost)
	}
	q.answered(wire.ReportAck{Report: "of another one"})
	q.answered(wire.ReportAck{Report: wire.ReportID(last.JWS)})
	q.answered(wire.ReportAck{Report: wire.ReportID(last.JWS)})
	if len(q.list) != maxReports-1 {
		t.Errorf("%d wait", len(q.list))
	}
	if q.sign(r, key, identity.SPKI{2}) == nil {
		t.Error("signed for an identity that was replaced")
	}
	if q.keep(identity.SPKI{2}); q.first() != "" || q.lost != 0 {
		t.Error("the next owner's server would get them")
	}
}
