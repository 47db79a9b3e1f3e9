package manager

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"hawser/transport"
	"hawser/transport/api"
)

// Sessions lists the open sessions that this user may see, oldest first: all of them, or those with a device, by UID or name.
// It is never nil, so that JSON has a list.
func (a *Account) Sessions(ctx context.Context, device string) ([]api.Session, error) {
	var only api.Device
	if device != "" {
		var err error
		if only, err = a.Device(ctx, device); err != nil {
			return nil, err
		}
	}
	all := []api.Session{}
	const op = "list sessions"
	return all, pages(op, "/sessions", func(page string) (string, error) {
		var answer api.Sessions
		err := a.do(ctx, op, http.MethodGet, page, nil, &answer)
		all = append(all, slices.DeleteFunc(answer.Sessions, func(s api.Session) bool { return device != "" && s.Device != only.UID })...)
		return answer.Next, err
	})
}

// EndedSession is a session that was ended.
type EndedSession struct {
	Session string `json:"session"`
}

// EndSession ends a session: one's own, or as an admin anybody's. The program at its other end does not open it again. Reason
// not-found when there is none, or it is not this user's to end.
func (a *Account) EndSession(ctx context.Context, id string) (EndedSession, error) {
	if strings.Trim(id, "0123456789abcdef") != "" || len(id) != 32 {
		return EndedSession{}, usage("session: want the 32 digits that hawser session list shows")
	}
	path := "/sessions/" + id + "?" + url.Values{api.ParamReason: {string(transport.Ended)}}.Encode()
	return EndedSession{id}, a.do(ctx, "end session "+id, http.MethodDelete, path, nil, nil)
}

// WriteSessions writes a table. It has no UIDs: with two numbers of 32 digits no line fits a terminal.
func WriteSessions(w io.Writer, sessions []api.Session) error {
	rows := [][]string{{"SESSION", "DEVICE", "USER", "RELAY", "SINCE"}}
	for _, s := range sessions {
		rows = append(rows, []string{s.ID, s.Name, s.User, s.Relay, stamp(s.Since)})
	}
	return writeTable(w, rows)
}

// WriteEnded says which session was ended.
func WriteEnded(w io.Writer, s EndedSession) error {
	return writeFields(w, [][2]string{{"ended", s.Session}})
}
