package access

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
)

// The actions of access §7.
const (
	actionInit           = "init"
	actionLogin          = "login"
	actionLogout         = "logout"
	actionUserRenew      = "user-renew"
	actionDomainAdd      = "domain-add"
	actionDomainCode     = "domain-code"
	actionDomainReset    = "domain-reset"
	actionState          = "state"
	actionUserAdd        = "user-add"
	actionUserCode       = "user-code"
	actionUserRevoke     = "user-revoke"
	actionDeviceAdd      = "device-add"
	actionBatchAdd       = "batch-add"
	actionBatchEnd       = "batch-end"
	actionDeviceCode     = "device-code"
	actionDeviceCloned   = "device-cloned"
	actionDeviceAccept   = "device-accept"
	actionJoinBehind     = "join-behind"
	actionRelayRevoke    = "relay-revoke"
	actionDeviceRevoke   = "device-revoke"
	actionEnroll         = "enroll"
	actionEnrollRefused  = "enroll-refused"
	actionRenew          = "renew"
	actionOnline         = "online"
	actionOffline        = "offline"
	actionSessionOpen    = "session-open"
	actionSessionMove    = "session-move"
	actionSessionEnd     = "session-end"
	actionSessionRefused = "session-refused"
	actionSessionReport  = "session-report"
	actionRelayAdd       = "relay-add"
)

const resultOK = "ok"

// actorOperator is who has the server's directory.
const actorOperator = "operator"

// record makes an audit record about object, whose domain it belongs to. Append it in the transaction of the operation
// that it is about: an operation whose record cannot be written must not happen. The domain is that of the object and
// not of the actor: whose device it is decides who may read of it.
func (s *Server) record(action, actor string, object identity.Name, result error, detail string) store.Record {
	return store.Record{
		Time: s.now(), Domain: object.Domain, Actor: actor, Action: action,
		Object: object.String(), Result: resultOf(result), Detail: detail,
	}
}

// audit writes a record of something that changes nothing else in the store, such as a refusal.
func (s *Server) audit(ctx context.Context, r store.Record) error {
	return s.store.UpdateAlways(ctx, func(tx *store.Tx) error { return tx.Append(r) })
}

// auditPresence writes that a device or relay came or went: within a second, and lost with a power cut, since it is
// worth no delay. One whose link flaps does not push the others' records out.
func (s *Server) auditPresence(action string, l *link, why error, detail string) {
	r := s.record(action, l.from.String(), l.peer.Name, why, detail)
	if s.admits(l.peer.Name, r, flapRecords) {
		s.auditLater(r)
	}
}

// auditOf is audit for what somebody can cause as often as he likes.
func (s *Server) auditOf(ctx context.Context, who identity.Name, r store.Record, most int) error {
	if !s.admits(who, r, most) {
		return nil
	}
	return s.audit(ctx, r)
}

// auditLater is audit for what must not wait for the disk: devices that come and go. The record is written within a
// second, and lost in a power cut. A thousand devices that come back after a restart are so a few commits and not a
// thousand.
func (s *Server) auditLater(r store.Record) {
	s.store.Later(func(tx *store.Tx) error { return tx.Append(r) })
}

// resultOf returns ok for nil, else the error's reason.
func resultOf(err error) string {
	if err == nil {
		return resultOK
	}
	return string(transport.ReasonOf(err))
}

// getAudit returns the newest records of the caller's domain, or those before a cursor: an operator's own, an admin's all.
func (s *Server) getAudit(r request) (int, any, error) {
	f, err := s.auditFilter(r)
	if err != nil {
		return 0, nil, err
	}
	if err := r.cursor(&f.Before); err != nil {
		return 0, nil, err
	}
	page := api.Records{Records: []api.Record{}}
	err = s.store.View(r.Context(), func(tx *store.Tx) (err error) {
		if f.Domains, err = readable(tx, r.caller); err != nil {
			return err
		}
		if r.caller.role() < admin {
			f.Domains, f.Actor = []string{r.caller.domain()}, r.caller.peer.Name.String()
		}
		list, err := tx.Audit(f)
		// A full page may be the last one; the next is then empty, which costs less than reading one record more each
		// time.
		full := len(list) == f.Limit
		if n := fitting(list, true); n < len(list) {
			list, full = list[len(list)-n:], true
		}
		for _, record := range list {
			page.Records = append(page.Records, api.Record(record))
		}
		if full {
			page.Next = cursorOf(list[0].Place())
		}
		if err == nil {
			page.Statements, err = s.statedOf(tx, r.caller, list)
		}
		return err
	})
	return http.StatusOK, page, err
}

// auditFilter is what a request asks for.
func (s *Server) auditFilter(r request) (f store.AuditFilter, err error) {
	if f.Limit, err = r.limit(); err != nil {
		return f, err
	}
	query := r.URL.Query()
	if since := query.Get(api.ParamSince); since != "" {
		if f.Since, err = time.Parse(time.RFC3339, since); err != nil {
			return f, refuse(api.BadRequest, "since is not a time as in RFC 3339")
		}
	}
	if device := query.Get(api.ParamDevice); device != "" {
		m, err := s.findDevice(r.Context(), r.caller, device)
		if errors.Is(err, store.ErrNotFound) {
			return f, s.orLost(errNotFound)
		}
		if err != nil {
			return f, err
		}
		f.Object = m.Identity().String()
	}
	if user := query.Get(api.ParamUser); user != "" {
		if err := identity.CheckLabel(user); err != nil {
			return f, refuse(api.BadRequest, "user: "+err.Error())
		}
		name := identity.UserName(r.caller.domain(), user)
		if r.caller.role() < admin && name != r.caller.peer.Name {
			return f, refuse(transport.Policy, "an operator reads his own audit")
		}
		f.User = name.String()
	}
	return f, nil
}

// maxPageBytes bounds a page of records: those with reports are long.
const maxPageBytes = 1 << 20

// fitting is how many of the first records, or of the last, fit into a page; at least one.
func fitting(list []store.Record, last bool) int {
	size := 0
	for i := range list {
		r := list[i]
		if last {
			r = list[len(list)-1-i]
		}
		if size += len(r.Detail) + len(r.Report) + 800; size > maxPageBytes && i > 0 {
			return i
		}
	}
	return len(list)
}

// maxPageStatements bounds what is stated of the devices of a page.
const maxPageStatements = 512 << 10

// statedOf is what the owner has stated of the devices of records: names and keys, and what proves who signed it. It is for
// people to read by: what has no room is left out.
func (s *Server) statedOf(tx *store.Tx, c caller, list []store.Record) (texts []string, err error) {
	room, seen := maxPageStatements, make(map[string]bool)
	add := func(jws string) {
		if !seen[jws] && len(jws) <= room {
			seen[jws], room = true, room-len(jws)
			texts = append(texts, jws)
		}
	}
	for i := len(list) - 1; i >= 0; i-- {
		for _, uri := range []string{list[i].Object, list[i].Actor} {
			name, err := identity.ParseName(uri)
			if err != nil || name.Kind != identity.KindDevice || name.Domain != c.domain() || seen[uri] {
				continue
			}
			seen[uri] = true
			stated, err := tx.StatementsOf(name.Domain, subjectOf(name))
			if err != nil && !errors.Is(err, store.ErrDamaged) {
				return nil, err
			}
			for _, one := range newestOf(parseAll(stated)) {
				add(one.JWS)
				for _, jws := range c.owner.signersOf(one) {
					add(jws)
				}
			}
		}
	}
	return texts, nil
}

// newestOf leaves out the statements of a device that a newer one has replaced; keys and their invites stay, all of them:
// an older key has signed older reports.
func newestOf(pool []identity.Signed) []identity.Signed {
	var newest uint64
	for _, one := range pool {
		if d, ok := one.Statement.(identity.DeviceStatement); ok && !d.Released {
			newest = max(newest, d.Serial)
		}
	}
	return slices.DeleteFunc(pool, func(one identity.Signed) bool {
		d, ok := one.Statement.(identity.DeviceStatement)
		return ok && d.Serial != newest
	})
}

// readable lists the domains whose records a caller may read: the one of the caller, and for who runs the
// infrastructure also what concerns no domain. A domain whose row is damaged reads its own records all the same: its
// users may be looking for what has happened.
func readable(tx *store.Tx, c caller) ([]string, error) {
	domains := []string{c.domain()}
	d := store.Domain{Name: c.domain()}
	err := tx.Get(&d)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrDamaged) {
		return domains, nil
	}
	if d.Infrastructure {
		domains = append(domains, "")
	}
	return domains, err
}

// getAuditHeads tells where the chains begin and end, for whoever verifies them.
func (s *Server) getAuditHeads(r request) (int, any, error) {
	answer := api.AuditHeads{}
	err := s.store.View(r.Context(), func(tx *store.Tx) (err error) {
		answer.Heads, err = tx.AuditHeads()
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	// Signed at each request: who keeps it can tell later that what followed was cut off.
	for i, h := range answer.Heads {
		if answer.Heads[i], err = s.signedHead(r.Context(), h); err != nil {
			return 0, nil, err
		}
	}
	return http.StatusOK, answer, nil
}

// signedHead is a head with its node's signature. Of a node that is not there now it has none.
func (s *Server) signedHead(ctx context.Context, h api.AuditHead) (api.AuditHead, error) {
	if h.Node == s.cluster.node {
		return s.signHead(h)
	}
	if s.cluster.alone {
		return h, nil
	}
	reply, err := s.orderOf(ctx, h.Node, orderGrace, order{Head: true})
	if err != nil || reply.Head == nil || reply.Head.Node != h.Node || reply.Head.Seq < h.Seq {
		s.log.Debug("a node has not signed the end of its audit", "node", h.Node, "err", err)
		return h, nil
	}
	return *reply.Head, nil
}

// signHead signs where the audit of this node ends.
func (s *Server) signHead(h api.AuditHead) (_ api.AuditHead, err error) {
	if h.Seq > 0 {
		h.Proof, err = s.signCheckpoint(store.Checkpoint{Seq: h.Seq, Hash: h.Hash, At: s.now()})
	}
	return h, err
}

// getAuditChain tells a piece of one node's chain. Records of other domains are links without content, so that a domain
// can verify a chain that it shares with others.
func (s *Server) getAuditChain(r request) (int, any, error) {
	limit, err := r.limit()
	if err != nil {
		return 0, nil, err
	}
	query := r.URL.Query()
	after, err := strconv.ParseInt(cmp.Or(query.Get(api.ParamAfter), "0"), 10, 64)
	if err != nil || after < 0 {
		return 0, nil, refuse(api.BadRequest, "after is not the seq of a record, or 0")
	}
	node := cmp.Or(query.Get(api.ParamNode), s.cluster.node)
	if err := identity.CheckLabel(node); err != nil {
		return 0, nil, refuse(api.BadRequest, "node: "+err.Error())
	}
	answer := api.AuditChain{Links: []api.AuditLink{}}
	err = s.store.View(r.Context(), func(tx *store.Tx) error {
		domains, err := readable(tx, r.caller)
		if err != nil {
			return err
		}
		list, err := tx.AuditChain(node, after, limit)
		list = list[:fitting(list, false)]
		for _, record := range list {
			l := api.AuditLink{Seq: record.Seq, Prev: record.Prev, Hash: record.Hash}
			if slices.Contains(domains, record.Domain) {
				own := api.Record(record)
				l.Record = &own
			}
			answer.Links = append(answer.Links, l)
		}
		return err
	})
	return http.StatusOK, answer, err
}

// limit reads how many entries a request asks for.
func (r request) limit() (int, error) {
	text := r.URL.Query().Get(api.ParamLimit)
	if text == "" {
		return api.DefaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > api.MaxLimit {
		return 0, refuse(api.BadRequest, "limit is not 1 to 1000")
	}
	return n, nil
}

// cursor reads the place where a request goes on. Without a cursor, place stays as it is.
func (r request) cursor(place any) error {
	text := r.URL.Query().Get(api.ParamAfter)
	if text == "" {
		return nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	// PostgreSQL takes no zero byte in a text, and would answer with an error of the store.
	if err == nil && bytes.Contains(b, []byte(`\u0000`)) {
		err = errors.New("no place has that")
	}
	if err == nil {
		err = json.Unmarshal(b, place)
	}
	if err != nil {
		return refuse(api.BadRequest, "after is not a cursor of an answer")
	}
	return nil
}

// cursorOf encodes a place as text. A client only sends it back: what is in it may change with any version.
func cursorOf(place any) string {
	b, err := json.Marshal(place)
	if err != nil { // cannot happen: a place is strings and numbers
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(b)
}
