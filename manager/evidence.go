package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"hawser/identity"
	"hawser/internal/wait"
	"hawser/transport"
	"hawser/transport/api"
)

// AuditQuery chooses audit records. Empty members choose all.
type AuditQuery struct {
	Device string // a UID, a name, or a folder with a name
	User   string
	Since  time.Time
	Limit  int // how many at first, 1 to api.MaxLimit
}

// AuditRecord is a record with what the owner's statements say of it.
type AuditRecord struct {
	api.Record
	// Name is that of the device that the record is about, as its owner calls it now. The UID in Object stays what it is.
	Name string `json:"name,omitempty"`
	// Reported is what a device has reported; nil: the record has no report, or one that cannot be read. Unproven says why
	// nobody need believe it, empty for one that the device has signed.
	Reported *identity.Report `json:"reported,omitempty"`
	Unproven string           `json:"unproven,omitempty"`
}

// values is the query as the server gets it.
func (q AuditQuery) values() (url.Values, error) {
	v := url.Values{api.ParamLimit: {strconv.Itoa(q.Limit)}}
	if q.Limit < 1 || q.Limit > api.MaxLimit {
		return nil, usage("limit %d: want 1 to %d", q.Limit, api.MaxLimit)
	}
	if q.Device != "" {
		if err := checkTyped(q.Device); err != nil {
			return nil, err
		}
		v.Set(api.ParamDevice, q.Device)
	}
	if q.User != "" {
		if err := identity.CheckLabel(q.User); err != nil {
			return nil, usage("user: %w", err)
		}
		v.Set(api.ParamUser, q.User)
	}
	if !q.Since.IsZero() {
		v.Set(api.ParamSince, q.Since.UTC().Format(time.RFC3339Nano))
	}
	return v, nil
}

// ParseSince reads from when on records are wanted: a time as in RFC 3339, a date (its begin in UTC), or a duration before
// now, such as 24h. It is pure.
func ParseSince(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage("since %.40q: want a time such as 2026-03-01T08:00:00Z, a date such as 2026-03-01, or how long ago, such as 24h", s)
}

// Audit returns the newest records of the domain that q chooses, newest last, q.Limit at most.
func (a *Account) Audit(ctx context.Context, q AuditQuery) ([]AuditRecord, error) {
	return a.readAudit(ctx, q, func(ctx context.Context, path string, page *api.Records) error {
		return a.do(ctx, "read audit", http.MethodGet, path, nil, page)
	})
}

// readAudit reads pages, which go back in time, until there are enough.
func (a *Account) readAudit(ctx context.Context, q AuditQuery, get func(ctx context.Context, path string, page *api.Records) error) ([]AuditRecord, error) {
	query, err := q.values()
	if err != nil {
		return nil, err
	}
	found := []AuditRecord{}
	for range maxPages {
		var page api.Records
		query.Set(api.ParamLimit, strconv.Itoa(q.Limit-len(found)))
		if err := get(ctx, "/audit?"+query.Encode(), &page); err != nil {
			return nil, err
		}
		found = append(a.judged(page), found...)
		if page.Next == "" || len(found) >= q.Limit {
			break
		}
		query.Set(api.ParamAfter, page.Next)
	}
	return list(found[max(0, len(found)-q.Limit):]), nil
}

// judged looks what the owner's statements say of a page. They come with it, from the server, and count because they lead to
// the domain key.
func (a *Account) judged(page api.Records) (list []AuditRecord) {
	e := evidenceOf(a.state.owner.Pinned(), parsed(page.Statements))
	names := make(map[string]string)
	for _, r := range page.Records {
		one := AuditRecord{Record: r}
		name, known := names[r.Object]
		if !known {
			name = a.nameOf(e, r.Object)
			names[r.Object] = name
		}
		if one.Name = name; r.Report != "" {
			report, err := e.prove(r)
			if report.JWS != "" {
				one.Reported = &report.Report
			}
			if err != nil {
				one.Unproven = err.Error()
			}
		}
		list = append(list, one)
	}
	return list
}

// evidence is what proves names and reports: statements, whoever brought them, and the domain key.
type evidence struct {
	identity.Pinned
	earlier []identity.PublicKey // domain keys that a person knows from before: they prove reports, and nothing else
	people  []identity.Signed    // what is stated of users
	devices map[identity.UID][]identity.Signed
}

// evidenceOf sorts a pool: that of a domain may have very many devices.
func evidenceOf(pinned identity.Pinned, pool []identity.Signed) evidence {
	e := evidence{Pinned: pinned, devices: make(map[identity.UID][]identity.Signed)}
	for _, s := range pool {
		if about, _ := numberOf(s.Statement); about.UID.IsZero() {
			e.people = append(e.people, s)
		} else {
			e.devices[about.UID] = append(e.devices[about.UID], s)
		}
	}
	return e
}

// nameOf is how its owner calls a device now; empty: it is no device, or nothing is stated. Reports are proven by whoever was an
// admin once; a name is not, or whoever was shut out would have said it for ever.
func (a *Account) nameOf(e evidence, uri string) string {
	name, err := identity.ParseName(uri)
	if err != nil || name.Kind != identity.KindDevice || name.Domain != e.Domain {
		return ""
	}
	var newest identity.DeviceStatement
	uid, _ := identity.ParseUID(name.ID)
	pool := slices.Concat(e.devices[uid], e.people)
	for _, s := range e.devices[uid] {
		d, ok := s.Statement.(identity.DeviceStatement)
		if ok && d.Serial > newest.Serial && a.genuine(pool, s) {
			newest = d
		}
	}
	if newest.Folder != "" {
		return newest.Folder + "/" + newest.Name
	}
	return newest.Name
}

// prove tells whether the report of a record is the word of the device that the record names, about the user whom it names
// (identity §17.3). The report has its JWS if it can be read.
func (e evidence) prove(r api.Record) (identity.SignedReport, error) {
	report, err := matchReport(r, e.Domain)
	if err == nil && e.chain(report) == nil {
		err = errNotSigned
	}
	return report, err
}

var errNotSigned = errors.New("the report is not signed by a key that the owner has stated for the device")

// matchReport reads the report of a record, which must be about the same device and user.
func matchReport(r api.Record, domain string) (identity.SignedReport, error) {
	report, err := identity.ParseReport(r.Report)
	if err != nil {
		return report, fmt.Errorf("the report cannot be read: %w", err)
	}
	device, user := identity.DeviceName(report.Domain, report.UID), identity.UserName(report.Domain, report.User)
	if r.Action != actionReport || r.Object != device.String() || r.Actor != user.String() || r.Domain != report.Domain || report.Domain != domain {
		return report, errors.New("the report is about another device, user or domain than the record")
	}
	return report, nil
}

// keyOf is the key that has signed a report, of those that somebody says are the device's.
func (e evidence) keyOf(report identity.SignedReport) (identity.PublicKey, bool) {
	for _, s := range e.devices[report.UID] {
		if key, ok := s.Statement.(identity.KeyStatement); ok && report.SignedBy(key.Key) {
			return key.Key, true
		}
	}
	return identity.PublicKey{}, false
}

// chain leads from the domain key to the key that has signed a report; nil: there is none.
func (e evidence) chain(report identity.SignedReport) []string {
	key, ok := e.keyOf(report)
	if !ok {
		return nil
	}
	pool := slices.Concat(e.devices[report.UID], e.people)
	peer := identity.Peer{Name: identity.DeviceName(report.Domain, report.UID), SPKI: key.SPKI()}
	for _, domain := range append([]identity.PublicKey{e.Key}, e.earlier...) {
		v := identity.Verifier{Pinned: identity.Pinned{Domain: e.Domain, Key: domain}}
		if chain := v.Gather(pool, peer); chain != nil {
			return chain
		}
	}
	return nil
}

const (
	followEvery = 3 * time.Second
	// followOverlap is how late a record may come: the clocks of several servers differ by less than 30 s.
	followOverlap = time.Minute
	// followLine is how long a connection is used: the certificate that it has shown ends some time.
	followLine = 10 * time.Minute
)

// ErrSkipped is what FollowAudit says when more records came at once than it shows.
var ErrSkipped = fmt.Errorf("more than %d records came at once, and the oldest of them are not shown", api.MaxLimit)

// FollowAudit calls show with what q chooses, and then with each new record that it chooses, until ctx ends, for which it
// returns nil. A connection or a server that is lost is tried again; lost says why, and nil when it goes on. Both are called on
// the caller's goroutine.
func (a *Account) FollowAudit(ctx context.Context, q AuditQuery, show func([]AuditRecord) error, lost func(error)) error {
	f := follower{a: a, query: q}
	defer f.hangUp()
	first, err := a.readAudit(ctx, q, f.get)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	if err := show(first); err != nil {
		return err
	}
	list, err := f.fresh(ctx, first)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	if len(first) == q.Limit { // those that were not shown because there were too many are not new
		list = slices.DeleteFunc(list, func(r AuditRecord) bool { return !r.Time.After(first[0].Time) })
	}
	if len(list) > 0 {
		if err := show(list); err != nil {
			return err
		}
	}
	backoff := wait.Backoff{First: followEvery, Longest: time.Minute}
	for failures, rest := 0, followEvery; wait.Sleep(ctx, rest); {
		list, err := f.fresh(ctx, nil)
		rest = followEvery
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && isFinal(err):
			return err
		case err != nil:
			if failures++; failures == 1 {
				lost(err)
			}
			rest = backoff.After(failures, retryAfter(err))
			continue
		case failures > 0:
			failures = 0
			lost(nil)
		}
		if len(list) == 0 {
			continue
		}
		if len(list) == api.MaxLimit {
			lost(fmt.Errorf("%w: see hawser audit --since %s", ErrSkipped, stamp(list[0].Time.Add(-followOverlap))))
		}
		if err := show(list); err != nil {
			return err
		}
	}
	return nil
}

func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// follower asks again and again over one connection.
type follower struct {
	a     *Account
	query AuditQuery
	line  *line
	seen  map[recordID]time.Time // of the last followOverlap
	until time.Time              // the newest record so far
}

type recordID struct {
	node string
	seq  int64
}

// fresh returns the records that were not there the last time. shown were read by other means.
func (f *follower) fresh(ctx context.Context, shown []AuditRecord) (list []AuditRecord, err error) {
	if f.seen == nil {
		f.seen = make(map[recordID]time.Time)
	}
	for _, r := range shown {
		f.note(r)
	}
	q := f.query
	q.Limit = api.MaxLimit
	if late := f.until.Add(-followOverlap); !f.until.IsZero() && late.After(q.Since) {
		q.Since = late
	}
	all, err := f.a.readAudit(ctx, q, f.get)
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if _, known := f.seen[recordID{r.Node, r.Seq}]; !known {
			f.note(r)
			list = append(list, r)
		}
	}
	for id, at := range f.seen {
		if f.until.Sub(at) > 2*followOverlap {
			delete(f.seen, id)
		}
	}
	return list, nil
}

func (f *follower) note(r AuditRecord) {
	f.seen[recordID{r.Node, r.Seq}] = r.Time
	if r.Time.After(f.until) {
		f.until = r.Time
	}
}

// get makes one request over the connection that there is, or another one.
func (f *follower) get(ctx context.Context, path string, page *api.Records) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	const op = "follow audit"
	if f.line != nil && time.Since(f.line.began) > followLine {
		f.hangUp()
	}
	if f.line == nil {
		if err := f.a.refresh(ctx); err != nil {
			return err
		}
		conn, err := f.a.dial(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
		f.line = newLine(conn, true)
	}
	err := f.line.roundTrip(ctx, http.MethodGet, path, nil, page)
	if err != nil {
		f.hangUp()
		return fail(transport.ReasonOf(err), op, err)
	}
	return nil
}

func (f *follower) hangUp() {
	if f.line != nil {
		f.line.close()
		f.line = nil
	}
}

// WriteRecords writes a table of audit records.
func WriteRecords(w io.Writer, records []AuditRecord) error {
	rows := [][]string{{"TIME", "ACTOR", "ACTION", "OBJECT", "NAME", "RESULT", "DETAIL"}}
	for _, r := range records {
		rows = append(rows, r.row())
	}
	return writeTable(w, rows)
}

// WriteFollowed writes records that come one after the other: a table would have other columns each time.
func WriteFollowed(w io.Writer, records []AuditRecord) error {
	for _, r := range records {
		row := r.row()
		for i := range row {
			if row[i] = clean(row[i]); row[i] == "" {
				row[i] = "-"
			}
		}
		if _, err := fmt.Fprintln(w, strings.Join(row, "  ")); err != nil {
			return err
		}
	}
	return nil
}

func (r AuditRecord) row() []string {
	detail := r.Detail
	if r.Report != "" {
		detail = r.said()
	}
	return []string{stamp(r.Time), r.Actor, r.Action, r.Object, r.Name, r.Result, detail}
}

// said is a report in one line. What is not proven says so first.
func (r AuditRecord) said() string {
	if r.Reported == nil {
		return "NOT PROVEN: " + r.Unproven
	}
	var b strings.Builder
	if r.Unproven != "" {
		b.WriteString("NOT PROVEN (" + r.Unproven + "): ")
	}
	p := r.Reported
	fmt.Fprintf(&b, "session %s, part %d of epoch %d, since %s", p.Session, p.Part, p.Epoch, stamp(time.Unix(p.Begin, 0)))
	if p.Reason != "" {
		fmt.Fprintf(&b, ", ended %s: %s", stamp(time.Unix(p.End, 0)), p.Reason)
	}
	for _, s := range p.Streams {
		fmt.Fprintf(&b, "; %s", s.Target)
		if s.Count > 1 {
			fmt.Fprintf(&b, " (%d times)", s.Count)
		}
		fmt.Fprintf(&b, " from %s", stamp(time.Unix(s.Begin, 0)))
		if s.End > 0 {
			fmt.Fprintf(&b, " to %s", stamp(time.Unix(s.End, 0)))
		}
		fmt.Fprintf(&b, ", %d bytes in, %d out", s.In, s.Out)
		if s.Reason != "" {
			b.WriteString(", " + s.Reason)
		}
	}
	for _, one := range []struct {
		n    uint64
		text string
	}{
		{p.More.Count, fmt.Sprintf("more streams than it lists, with %d bytes in, %d out", p.More.In, p.More.Out)},
		{p.Refused, "streams refused"}, {p.Lost, "earlier reports of this gateway are lost"},
	} {
		if one.n > 0 {
			fmt.Fprintf(&b, "; %d %s", one.n, one.text)
		}
	}
	return b.String()
}
