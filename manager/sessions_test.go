package manager

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/api"
)

func TestSessionsAreListedAndEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		other := identity.NewUID()
		id := func(digit string) string { return strings.Repeat(digit, 32) }
		f.answer("GET /sessions", func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Query().Get("after") {
			case "":
				jsonAnswer(api.Sessions{Sessions: []api.Session{{ID: id("1"), Device: f.uid, Name: "press"}, {ID: id("2"), Device: other}}, Next: "x"})(w, r)
			default:
				jsonAnswer(api.Sessions{Sessions: []api.Session{{ID: id("3"), Device: f.uid, Name: "press"}}})(w, r)
			}
		})
		f.answer("GET /devices/press", jsonAnswer(api.Device{UID: f.uid, Name: "press"}))
		for device, want := range map[string][]string{"": {id("1"), id("2"), id("3")}, "press": {id("1"), id("3")}} {
			list, err := a.Sessions(t.Context(), device)
			var got []string
			for _, s := range list {
				got = append(got, s.ID)
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%q: %q, %v", device, got, err)
			}
		}
		if _, err := a.Sessions(t.Context(), "nowhere"); transport.ReasonOf(err) != api.NotFound {
			t.Errorf("no such device: %v", err)
		}
		query := ""
		f.answer("DELETE /sessions/"+id("1"), func(w http.ResponseWriter, r *http.Request) {
			query = r.URL.RawQuery
			w.WriteHeader(http.StatusNoContent)
		})
		if ended, err := a.EndSession(t.Context(), id("1")); err != nil || ended.Session != id("1") || query != "reason=ended" {
			t.Errorf("%+v, %v, asked with %q", ended, err, query)
		}
		if _, err := a.EndSession(t.Context(), id("4")); transport.ReasonOf(err) != api.NotFound {
			t.Errorf("no such session: %v", err)
		}
		for _, bad := range []string{"", "s1", "press", id("1")[1:], id("G"), id("1") + "/x", "../devices/press/revoke", id("A")} {
			if _, err := a.EndSession(t.Context(), bad); ExitCode(err) != answer.ExitUsage {
				t.Errorf("%q: %v", bad, err)
			}
		}
	})
}
