package access

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
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

func unmarshal(b []byte, into any) error { return json.Unmarshal(b, into) }

func TestRequestFaultsAreProblems(t *testing.T) {
	big := `{"name":"` + strings.Repeat("x", api.MaxBodyBytes) + `"}`
	cases := []struct {
		name, method, path, body string
		status                   int
		code                     transport.Reason
	}{
		{"unknown path", "GET", "/api/v2", "", 404, api.NotFound},
		{"method", "PUT", "/api/v1/devices", "{}", 405, api.MethodNotAllowed},
		{"HEAD", "DELETE", "/api/v1/audit", "", 405, api.MethodNotAllowed},
		{"no body", "POST", "/api/v1/devices", "", 400, api.BadRequest},
		{"not JSON", "POST", "/api/v1/devices", "name=x", 400, api.BadRequest},
		{"a list", "POST", "/api/v1/devices", "[]", 400, api.BadRequest},
		{"unknown member", "POST", "/api/v1/devices", `{"name":"x","admin":true}`, 400, api.BadRequest},
		{"two values", "POST", "/api/v1/devices", `{"name":"x"}{"name":"y"}`, 400, api.BadRequest},
		{"cut off", "POST", "/api/v1/devices", `{"name":"x`, 400, api.BadRequest},
		{"deep nesting", "POST", "/api/v1/devices", strings.Repeat("[", 60000), 400, api.BadRequest},
		{"oversized", "POST", "/api/v1/devices", big, 413, api.TooLarge},
		{"name with a newline", "POST", "/api/v1/devices", `{"name":"x\ny"}`, 400, api.BadRequest},
		{"name with bidi", "POST", "/api/v1/devices", `{"name":"x\u202ey"}`, 400, api.BadRequest},
		{"empty name", "POST", "/api/v1/devices", `{"name":""}`, 400, api.BadRequest},
		{"name like a UID", "POST", "/api/v1/devices", `{"name":"` + identity.NewUID().String() + `"}`, 400, api.BadRequest},
		{"audit limit 0", "GET", "/api/v1/audit?limit=0", "", 400, api.BadRequest},
		{"audit limit 1001", "GET", "/api/v1/audit?limit=1001", "", 400, api.BadRequest},
		{"audit limit x", "GET", "/api/v1/audit?limit=x", "", 400, api.BadRequest},
		{"session id with a dot", "DELETE", "/api/v1/sessions/a.b", "", 404, api.NotFound},
		{"device with a wildcard", "GET", "/api/v1/devices/%3E", "", 404, api.NotFound},
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(cases)))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		for _, c := range cases {
			response, raw := w.callRaw(admin, c.method, c.path, []byte(c.body))
			var p api.Problem
			if err := json.Unmarshal(raw, &p); err != nil {
				t.Errorf("%s: %v: %s", c.name, err, raw)
			}
			if response.StatusCode != c.status || p.Code != c.code || p.Status != c.status || p.Title == "" ||
				response.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %d %s", c.name, response.StatusCode, raw)
			}
			if allow := response.Header.Get("Allow"); (c.status == 405) != (allow != "") {
				t.Errorf("%s: Allow %q", c.name, allow)
			}
		}
		w.addPending(admin, "x") // without a fault
	})
}

func TestDevicesThroughTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		code, added := w.addPending(admin, "press 1")
		_, again := w.newDevice(admin, "press 1")
		if status := w.call(admin, "POST", "/api/v1/devices", again, nil); status != 409 {
			t.Errorf("the same name: %d", status)
		}
		if left := time.Until(added.Expires); left != codeLife {
			t.Errorf("code lives %v", left)
		}
		show := func(device string) (v api.Device) { w.call(admin, "GET", "/api/v1/devices/"+device, nil, &v); return v }
		if v := show("press%201"); v.State != "pending" || v.Online || !v.NotAfter.IsZero() || v.UID != added.UID || v.Hints == nil {
			t.Errorf("pending: %+v", v)
		}
		device := newSomeone()
		w.enroll(code, device)
		v := show(added.UID.String())
		if v.State != "enrolled" || v.SPKI != device.spki() || !v.NotAfter.Equal(device.Chain[0].NotAfter) || v.Hints["board"] != "b1" {
			t.Errorf("enrolled: %+v", v)
		}
		c := w.control(device, wire.Hello{Instance: "01", Hints: map[string]string{"board": "b2"}})
		if v := show("press%201"); !v.Online || v.Since.IsZero() || !strings.HasPrefix(v.Address, clientAddr.String()) || v.Hints["board"] != "b2" {
			t.Errorf("online: %+v", v)
		}
		c.Close()
		synctest.Wait()
		w.addDevice(admin, "lathe 2")
		var all struct{ Devices []api.Device }
		w.call(admin, "GET", "/api/v1/devices", nil, &all)
		if len(all.Devices) != 2 || all.Devices[0].Name != "lathe 2" || all.Devices[1].Online {
			t.Errorf("%+v", all)
		}
		w.call(admin, "POST", "/api/v1/devices/press%201/revoke", nil, nil)
		if v := show("press%201"); v.State != "revoked" {
			t.Errorf("revoked: %+v", v)
		}
		_, added = w.addPending(admin, "press 1") // a replacement with the name of a revoked device
		if v := show("press%201"); v.UID != added.UID {
			t.Errorf("%+v", v)
		}
	})
}

func TestAuditThroughTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		w.addDevice(admin, "press 1")
		var got struct{ Records []store.Record }
		w.call(admin, "GET", "/api/v1/audit", nil, &got)
		var actions []string
		for _, r := range got.Records {
			actions = append(actions, r.Action)
		}
		if !slices.Equal(actions, []string{"init", "login", "device-add", "enroll"}) {
			t.Errorf("%v", actions)
		}
		if last := got.Records[3]; last.Actor != clientAddr.String() || last.Node != "a1" || last.Result != "ok" {
			t.Errorf("%+v", last)
		}
		w.call(admin, "GET", "/api/v1/audit?limit=1", nil, &got)
		if len(got.Records) != 1 || got.Records[0].Action != "enroll" {
			t.Errorf("%+v", got)
		}
	})
}

// What a server removes of its audit it signs for, so that nobody else can let the chain begin later.
func TestOldAuditRecordsGoWithASignedHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Attr("id", "S-audit")
		w := newIdleWorld(t)
		st := must(store.Open(t.Context(), store.Options{Database: w.db.db, Node: "a1", Audit: store.Retention{Age: 24 * time.Hour}}))
		defer st.Close()
		w.cfg.Store = st
		for range 10 {
			must(0, st.Update(t.Context(), func(tx *store.Tx) error {
				for range 500 {
					if err := tx.Append(store.Record{Time: time.Now(), Action: "test"}); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		time.Sleep(24 * time.Hour)
		w.start()
		defer w.stop()
		time.Sleep(pruneEvery + time.Second)
		var heads api.AuditHeads
		w.call(w.login(), "GET", "/api/v1/audit/heads", nil, &heads)
		if len(heads.Heads) != 1 || heads.Heads[0].BeginsSeq != 4095 {
			t.Fatalf("%+v", heads)
		}
		got, err := identity.VerifyAuditHead(heads.Heads[0].BeginsProof, w.pki.Roots)
		if err != nil || got.Node != "a1" || got.Seq != 4095 || hex.EncodeToString(got.Hash[:]) != heads.Heads[0].BeginsHash {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// A domain verifies a chain that it shares with another one, whose records it cannot read.
func TestAuditChainThroughTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Attr("id", "S-audit")
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		w.put(&store.Domain{Name: "other"})
		w.addPending(w.newUser("other", "eve"), "theirs")
		w.addDevice(admin, "press 1")
		var heads api.AuditHeads
		w.call(admin, "GET", "/api/v1/audit/heads", nil, &heads)
		if len(heads.Heads) != 1 || heads.Heads[0].Seq != 5 {
			t.Fatalf("%+v", heads)
		}
		var all api.AuditChain
		w.call(admin, "GET", "/api/v1/audit/chain?node=a1&after=0", nil, &all)
		seq, hash, err := all.Verify("a1", 0, "")
		if err != nil || seq != 5 || hash != heads.Heads[0].Hash {
			t.Errorf("%d %s, %v", seq, hash, err)
		}
		var shown []bool
		for _, l := range all.Links {
			shown = append(shown, l.Record != nil)
		}
		if !slices.Equal(shown, []bool{true, true, false, true, true}) {
			t.Errorf("readable: %v", shown)
		}
		var rest api.AuditChain
		w.call(admin, "GET", "/api/v1/audit/chain?node=a1&after=3&limit=1", nil, &rest)
		if len(rest.Links) != 1 || rest.Links[0].Seq != 4 {
			t.Errorf("%+v", rest)
		}
		for _, bad := range []string{"after=x", "after=-1", "node=a%201", "limit=0"} {
			if code := w.code(admin, "GET", "/api/v1/audit/chain?"+bad, nil); code != api.BadRequest {
				t.Errorf("%s: %q", bad, code)
			}
		}
	})
}

// One connection of a user carries many requests, and a silent one is closed.
func TestAPIConnectionIsKeptAndThenClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		conn := w.dial(transport.ALPNAPI, w.login())
		defer conn.Close()
		for range 3 {
			fmt.Fprint(conn, "GET /api/v1/devices HTTP/1.1\r\nHost: a1\r\n\r\n")
			b := make([]byte, 4096)
			if n, err := conn.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200") {
				t.Fatalf("%s, %v", b[:n], err)
			}
		}
		start := time.Now()
		if _, err := conn.Read(make([]byte, 1)); err == nil || time.Since(start) != idleTimeout {
			t.Errorf("closed after %v: %v", time.Since(start), err)
		}
	})
}

// PostgreSQL takes no NUL and no broken UTF-8 in a text: that is the client's fault, before the store is asked.
func TestTextsThatNoDatabaseTakes(t *testing.T) {
	cursor := base64.RawURLEncoding.EncodeToString([]byte(`{"Name":"a\u0000","ID":""}`))
	cases := []struct {
		method, path string
		body         any
		want         transport.Reason
	}{
		{"GET", "/api/v1/devices?query=%00", nil, api.BadRequest},
		{"GET", "/api/v1/devices?query=%ff", nil, api.BadRequest},
		{"GET", "/api/v1/devices?query=" + strings.Repeat("a", 65), nil, api.BadRequest},
		{"GET", "/api/v1/devices?query=" + strings.Repeat("%C3%BC", 64), nil, ""},
		{"GET", "/api/v1/devices?after=" + cursor, nil, api.BadRequest},
		{"GET", "/api/v1/devices/a%00", nil, api.NotFound},
		{"GET", "/api/v1/devices/%ff", nil, api.NotFound},
		{"POST", "/api/v1/sessions", api.SessionRequest{Device: "a\x00", SessionVersion: wire.SessionVersion}, transport.NoDevice},
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", strconv.Itoa(len(cases)))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		for _, c := range cases {
			if got := w.code(admin, c.method, c.path, c.body); got != c.want {
				t.Errorf("%s %s: %q, want %q", c.method, c.path, got, c.want)
			}
		}
	})
}
