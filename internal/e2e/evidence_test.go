//go:build linux

package e2e

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/agent"
	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/manager"
	"hawser/server/store"
)

// carries sends n bytes through the forward to the PLC, and reads them back.
func (w *world) carries(n int) {
	w.t.Helper()
	c, err := w.net.Host(techAddr).DialContext(w.t.Context(), "tcp", netip.AddrPortFrom(techAddr, 1502).String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	w.tasks.Go(func() { c.Write(make([]byte, n)) })
	if got, err := io.ReadFull(c, make([]byte, n)); err != nil {
		w.t.Fatalf("%d bytes of %d, %v", got, n, err)
	}
}

// After a session the audit says which machine was reached and how many bytes went each way, to the byte, also when the server
// was away as it ended. The export proves it; and a server that has every key but the gateway's can neither make nor alter it.
func TestTheAuditSaysWhatWasReachedAndProvesIt(t *testing.T) {
	t.Attr("id", "T-evidence")
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stopAccess, stopRelay, stopDNS, stopPLC := w.accessServer(), w.relayServer(), w.resolver(), w.echo()
		tech := w.technician()
		defer tech.Close()
		a, err := agent.New(w.enrolled(tech, "press 4"))
		if err != nil {
			t.Fatal(err)
		}
		stopAgent := w.task("agent", a.Run)
		w.within(2*time.Minute, "online", func() bool { return a.Status().State == agent.StateAttached })
		ann := w.operator(tech, "ann", manager.UserRights{Role: identity.RoleOperator, Devices: []string{"*"}, Targets: []string{"*"}})
		defer ann.Close()

		const target = "192.168.10.50:502"
		forward, err := manager.ParseForward("1502:" + target)
		if err != nil {
			t.Fatal(err)
		}
		stopConnect := w.task("connect", func(ctx context.Context) error {
			return ann.Connect(ctx, "press 4", []manager.Forward{forward}, io.Discard, w.log)
		})
		want := identity.Carried{}
		carry := func(n int) {
			w.carries(n)
			want.Add(identity.Carried{In: uint64(n), Out: uint64(n), Count: 1})
		}
		w.within(10*time.Second, "ann is connected", w.reaches)
		want.Add(identity.Carried{In: 14, Out: 14, Count: 1})
		carry(123_456)
		time.Sleep(70 * time.Minute) // a part is reported while it runs
		carry(7)
		stopAccess()
		time.Sleep(time.Minute)
		carry(1_000_003)
		time.Sleep(time.Second)
		stopConnect()
		time.Sleep(5 * time.Minute)
		stopAccess = w.accessServer()

		// What was reported is in the audit within minutes, the last part too.
		query := manager.AuditQuery{Device: "press 4", User: "ann", Since: time.Now().Add(-24 * time.Hour), Limit: 100}
		var got identity.Carried
		ended := func() bool {
			list, err := tech.Audit(t.Context(), query)
			if err != nil {
				return false
			}
			got = identity.Carried{}
			last := false
			for _, r := range list {
				if r.Reported == nil {
					continue
				}
				if r.Unproven != "" || r.Name != "press 4" || r.Reported.User != "ann" || r.Reported.More.Count+r.Reported.Lost != 0 {
					t.Fatalf("%+v", r)
				}
				for _, s := range r.Reported.Streams {
					if s.Target != target {
						t.Errorf("it says that %s was reached", s.Target)
					}
					got.Add(s.Carried)
				}
				last = last || r.Reported.End != 0
			}
			return last
		}
		w.within(10*time.Minute, "the audit has the last report", ended)
		if got != want {
			t.Errorf("the audit says %+v, it was %+v", got, want)
		}
		list, err := ann.Audit(t.Context(), manager.AuditQuery{Limit: 100})
		if err != nil || len(list) == 0 {
			t.Errorf("ann reads %d records of her own, %v", len(list), err)
		}
		var text bytes.Buffer
		if err := manager.WriteRecords(&text, list); err != nil || !strings.Contains(text.String(), target) || strings.Contains(text.String(), "NOT PROVEN") {
			t.Errorf("%v\n%s", err, text.String())
		}

		export := func(name string) manager.VerifiedExport {
			path := filepath.Join(w.dir, name)
			if x, err := tech.ExportAudit(t.Context(), path); err != nil || x.Reports < 2 {
				t.Fatalf("%+v, %v", x, err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			roots, pinned := tech.Trust()
			v, err := manager.VerifyExport(f, roots, pinned)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		if v := export("good"); v.Err() != nil || v.Reports < 2 {
			t.Errorf("%+v", v)
		}

		// The server writes a report of its own, for the same session, with a key that it says is the gateway's. It can make the
		// whole chain anew, and sign its end.
		forged := *list[len(list)-1].Reported
		for _, r := range list {
			if r.Reported != nil {
				forged = *r.Reported
			}
		}
		forged.Streams[0].Target = "192.168.10.51:502"
		signed, err := forged.Sign(identitytest.NewKey())
		if err != nil {
			t.Fatal(err)
		}
		err = w.store.Update(t.Context(), func(tx *store.Tx) error {
			return tx.Append(store.Record{Time: time.Now(), Domain: "default", Actor: "hawser://default/user/ann", Action: "session-report",
				Object: identity.DeviceName("default", forged.UID).String(), Result: "ok", Report: signed.JWS})
		})
		if err != nil {
			t.Fatal(err)
		}
		list, err = tech.Audit(t.Context(), manager.AuditQuery{Limit: 1})
		if err != nil || len(list) != 1 || list[0].Unproven == "" {
			t.Errorf("a forged report is shown as one of the gateway: %+v, %v", list, err)
		}
		if v := export("forged"); len(v.Problems) != 1 || v.Chains[0].Problem != "" {
			t.Errorf("a forged report is exported as one of the gateway: %+v", v)
		}
		for _, stop := range []func(){stopAgent, stopPLC, stopRelay, stopAccess, stopDNS} {
			stop()
		}
	})
}
