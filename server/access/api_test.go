package access

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/wire"
)

func jsonOf(v any) ([]byte, error)       { return json.Marshal(v) }
func unmarshal(b []byte, into any) error { return json.Unmarshal(b, into) }

func TestRequestFaultsAreProblems(t *testing.T) {
	big := `{"name":"` + strings.Repeat("x", maxBodyBytes) + `"}`
	cases := []struct {
		name, method, path, body string
		status                   int
		code                     transport.Reason
	}{
		{"unknown path", "GET", "/api/v2", "", 404, codeNotFound},
		{"method", "PUT", "/api/v1/devices", "{}", 405, codeMethodNotAllowed},
		{"HEAD", "DELETE", "/api/v1/audit", "", 405, codeMethodNotAllowed},
		{"no body", "POST", "/api/v1/devices", "", 400, codeBadRequest},
		{"not JSON", "POST", "/api/v1/devices", "name=x", 400, codeBadRequest},
		{"a list", "POST", "/api/v1/devices", "[]", 400, codeBadRequest},
		{"unknown member", "POST", "/api/v1/devices", `{"name":"x","admin":true}`, 400, codeBadRequest},
		{"two values", "POST", "/api/v1/devices", `{"name":"x"}{"name":"y"}`, 400, codeBadRequest},
		{"cut off", "POST", "/api/v1/devices", `{"name":"x`, 400, codeBadRequest},
		{"deep nesting", "POST", "/api/v1/devices", strings.Repeat("[", 60000), 400, codeBadRequest},
		{"oversized", "POST", "/api/v1/devices", big, 413, codeTooLarge},
		{"name with a newline", "POST", "/api/v1/devices", `{"name":"x\ny"}`, 400, codeBadRequest},
		{"name with bidi", "POST", "/api/v1/devices", `{"name":"x\u202ey"}`, 400, codeBadRequest},
		{"empty name", "POST", "/api/v1/devices", `{"name":""}`, 400, codeBadRequest},
		{"name like a UID", "POST", "/api/v1/devices", `{"name":"` + identity.NewUID().String() + `"}`, 400, codeBadRequest},
		{"audit limit 0", "GET", "/api/v1/audit?limit=0", "", 400, codeBadRequest},
		{"audit limit 1001", "GET", "/api/v1/audit?limit=1001", "", 400, codeBadRequest},
		{"audit limit x", "GET", "/api/v1/audit?limit=x", "", 400, codeBadRequest},
		{"session id with a dot", "DELETE", "/api/v1/sessions/a.b", "", 404, codeNotFound},
		{"device with a wildcard", "GET", "/api/v1/devices/%3E", "", 404, codeNotFound},
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(cases)))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		admin := w.login()
		for _, c := range cases {
			response, raw := w.callRaw(admin, c.method, c.path, []byte(c.body))
			var p problem
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
		if status := w.call(admin, "POST", "/api/v1/devices", addBody{"x"}, nil); status != 201 {
			t.Errorf("without a fault: %d", status)
		}
	})
}

func TestDevicesThroughTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		admin := w.login()
		var added addAnswer
		w.call(admin, "POST", "/api/v1/devices", addBody{"press 1"}, &added)
		if status := w.call(admin, "POST", "/api/v1/devices", addBody{"press 1"}, nil); status != 409 {
			t.Errorf("the same name: %d", status)
		}
		if left := time.Until(added.Expires); left != codeLife {
			t.Errorf("code lives %v", left)
		}
		show := func(device string) (v deviceView) { w.call(admin, "GET", "/api/v1/devices/"+device, nil, &v); return v }
		if v := show("press%201"); v.State != "pending" || v.Online || v.NotAfter != nil || v.UID != added.UID || v.Hints == nil {
			t.Errorf("pending: %+v", v)
		}
		device := newSomeone()
		w.enrol(added.Code, device)
		v := show(added.UID.String())
		if v.State != "enrolled" || v.SPKI != device.spki() || !v.NotAfter.Equal(device.chain[0].NotAfter) || v.Hints["board"] != "b1" {
			t.Errorf("enrolled: %+v", v)
		}
		c := w.control(device, wire.Hello{Instance: "01", Hints: map[string]string{"board": "b2"}})
		if v := show("press%201"); !v.Online || v.Since == nil || !strings.HasPrefix(v.Address, clientAddr.String()) || v.Hints["board"] != "b2" {
			t.Errorf("online: %+v", v)
		}
		c.Close()
		synctest.Wait()
		w.addDevice(admin, "lathe 2")
		var all struct{ Devices []deviceView }
		w.call(admin, "GET", "/api/v1/devices", nil, &all)
		if len(all.Devices) != 2 || all.Devices[0].Name != "lathe 2" || all.Devices[1].Online {
			t.Errorf("%+v", all)
		}
		w.call(admin, "POST", "/api/v1/devices/press%201/revoke", nil, nil)
		if v := show("press%201"); v.State != "revoked" {
			t.Errorf("revoked: %+v", v)
		}
		if status := w.call(admin, "POST", "/api/v1/devices", addBody{"press 1"}, &added); status != 201 {
			t.Errorf("a replacement with the name of a revoked device: %d", status)
		}
		if v := show("press%201"); v.UID != added.UID {
			t.Errorf("%+v", v)
		}
	})
}

// A server that died while it added a device leaves a name that can be used
// again after a minute.
func TestReservedNameIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		admin := w.login()
		left := nameRecord{identity.NewUID(), time.Now()}
		if err := save(t.Context(), w.cfg.Store, bucketNames, nameKeyOf("plant", "press 1"), left, 0); err != nil {
			t.Fatal(err)
		}
		if status := w.call(admin, "POST", "/api/v1/devices", addBody{"press 1"}, nil); status != 409 {
			t.Errorf("at once: %d", status)
		}
		time.Sleep(claimGrace)
		if status := w.call(admin, "POST", "/api/v1/devices", addBody{"press 1"}, nil); status != 201 {
			t.Errorf("later: %d", status)
		}
	})
}

func TestAuditThroughTheAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		admin := w.login()
		w.addDevice(admin, "press 1")
		var got struct{ Records []Record }
		w.call(admin, "GET", "/api/v1/audit", nil, &got)
		var actions []string
		for _, r := range got.Records {
			actions = append(actions, r.Action)
		}
		if !slices.Equal(actions, []string{"init", "login", "device-add", "enrol"}) {
			t.Errorf("%v", actions)
		}
		if last := got.Records[3]; last.Actor != clientAddr.String() || last.Node != "a1" || last.Result != "ok" {
			t.Errorf("%+v", last)
		}
		w.call(admin, "GET", "/api/v1/audit?limit=1", nil, &got)
		if len(got.Records) != 1 || got.Records[0].Action != "enrol" {
			t.Errorf("%+v", got)
		}
	})
}

// One connection carries many requests, and a silent one is closed.
func TestAPIConnectionIsKeptAndThenClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, NewMemory())
		defer w.stop()
		conn := w.dial(transport.ALPNAPI, nil)
		defer conn.Close()
		for range 3 {
			fmt.Fprint(conn, "GET /nothing HTTP/1.1\r\nHost: a1\r\n\r\n")
			b := make([]byte, 4096)
			if n, err := conn.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 404") {
				t.Fatalf("%s, %v", b[:n], err)
			}
		}
		start := time.Now()
		if _, err := conn.Read(make([]byte, 1)); err == nil || time.Since(start) != idleTimeout {
			t.Errorf("closed after %v: %v", time.Since(start), err)
		}
	})
}
