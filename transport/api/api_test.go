package api_test

import (
	"encoding/json"
	"testing"
	"time"

	"hawser/identity"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// The members of each body stand as access §6 to §8 name them, in this order: audit records are hashed as they are written.
func TestBodiesHaveTheMembersOfTheSpec(t *testing.T) {
	at := time.Date(2026, 11, 29, 8, 0, 0, 0, time.UTC)
	uid, err := identity.ParseUID("000102030405060708090a0b0c0d0e0f")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		body any
		want string
	}{
		{api.LoginRequest{Code: "c", User: "u", CSR: []byte{1}}, `{"code":"c","user":"u","csr":"AQ=="}`},
		{api.LoginRequest{Lookup: "l", Auth: []byte{1}, CSR: []byte{1}}, `{"lookup":"l","auth":"AQ==","csr":"AQ=="}`},
		{api.LoginAnswer{}, `{"chain":"","domain":"","user":"","hosts":null,"ports":null}`},
		{api.RenewRequest{CSR: []byte{1}}, `{"csr":"AQ=="}`},
		{api.RenewAnswer{Chain: "x"}, `{"chain":"x"}`},
		{api.RelayRequest{Name: "n", Hosts: []string{"h"}}, `{"name":"n","hosts":["h"]}`},
		{api.DeviceRequest{Code: api.NewCode{Lookup: "l", Hash: []byte{1}, MAC: []byte{2}, List: 3, Statements: []string{"d", "i"}}},
			`{"code":{"lookup":"l","hash":"AQ==","mac":"Ag==","list":3,"statements":["d","i"]}}`},
		{api.NewSubject{UID: uid, Name: "n", Expires: at},
			`{"uid":"000102030405060708090a0b0c0d0e0f","name":"n","expires":"2026-11-29T08:00:00Z"}`},
		{api.User{Name: "n", Role: identity.RoleViewer, Created: at, Keys: []api.UserKey{}},
			`{"name":"n","role":"viewer","created":"2026-11-29T08:00:00Z","keys":[]}`},
		{api.Statements{Statements: []string{"s"}}, `{"statements":["s"]}`},
		{api.NewRelay{Name: "n", Code: "c", Expires: at}, `{"name":"n","code":"c","expires":"2026-11-29T08:00:00Z"}`},
		{api.Device{UID: uid, State: api.StatePending, Created: at, Hints: map[string]string{}},
			`{"uid":"000102030405060708090a0b0c0d0e0f","name":"","folder":"","domain":"","state":"pending","online":false,"address":"",` +
				`"created":"2026-11-29T08:00:00Z","spki_sha256":"","hints":{},"lookup":""}`},
		{api.Device{Since: at, Created: at, NotAfter: at},
			`{"uid":"","name":"","folder":"","domain":"","state":"","online":false,"address":"","since":"2026-11-29T08:00:00Z",` +
				`"created":"2026-11-29T08:00:00Z","not_after":"2026-11-29T08:00:00Z","spki_sha256":"","hints":null,"lookup":""}`},
		{api.Devices{Devices: []api.Device{}}, `{"devices":[],"next":""}`},
		{api.Relays{Relays: []wire.Relay{{Name: "r"}}, Next: "r"}, `{"relays":[{"name":"r","hosts":null,"ports":null}],"next":"r"}`},
		{api.SessionRequest{Device: "d", SessionVersion: 2}, `{"device":"d","session_version":2}`},
		{api.MoveRequest{Epoch: 1, Reason: "reset"}, `{"epoch":1,"reason":"reset"}`},
		{api.Record{Seq: 1, Time: at},
			`{"seq":1,"time":"2026-11-29T08:00:00Z","node":"","domain":"","actor":"","action":"","object":"","result":"","detail":"","prev":""}`},
		{api.Records{Records: []api.Record{}}, `{"records":[],"next":""}`},
		{api.Decision{Device: uid, At: at, Relays: []api.RelayChoice{{Name: "r", Manager: &api.Measured{LossPct: 20, At: at}, Verdict: api.VerdictOut}}},
			`{"device":"000102030405060708090a0b0c0d0e0f","at":"2026-11-29T08:00:00Z","chosen":"","incumbent":"","relays":[` +
				`{"name":"r","manager":{"rtt_ms":0,"jitter_ms":0,"loss_pct":20,"port":0,"way":"","reason":"","at":"2026-11-29T08:00:00Z"},` +
				`"runtime":null,"pipes":0,"max":0,"score_ms":0,"verdict":"out","reason":""}]}`},
		{api.Problem{Code: api.NotFound}, `{"type":"","title":"","status":0,"detail":"","code":"not-found"}`},
	} {
		got, err := json.Marshal(tt.body)
		if err != nil || string(got) != tt.want {
			t.Errorf("%T:\n got %s, %v\nwant %s", tt.body, got, err, tt.want)
		}
	}
}
