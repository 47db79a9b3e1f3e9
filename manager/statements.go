package manager

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// maxTries bounds how often a code is drawn anew whose lookup id, or UID, is in use already.
const maxTries = 4

// maxPool bounds the statements of a domain that are read, in bytes: those of 50,000 devices.
const maxPool = 128 << 20

// statements is what the server has of the domain, as far as this user may see it.
type statements []identity.Signed

// read asks for the statements of the domain, and takes what is new in them.
func (a *Account) read(ctx context.Context) (pool statements, err error) {
	reset, texts, err := a.fetch(ctx)
	if err != nil {
		// What has come counts: who is shut out must not come back because the rest does not arrive.
		_, _ = a.state.owner.Take(texts, a.m.now())
		return nil, err
	}
	if err := a.meet(reset, texts); err != nil {
		return nil, err
	}
	_, err = a.state.owner.Take(texts, a.m.now())
	return parsed(texts), asUsage(err)
}

// publish gives statements to the server, which keeps them for others.
func (a *Account) publish(ctx context.Context, texts ...string) error {
	return a.do(ctx, "publish statements", http.MethodPost, "/statements", api.Statements{Statements: texts}, nil)
}

// maxPost is how many bytes of statements go into one request, with room for what is around them.
const maxPost = 48 << 10

// publishAll is publish for any number of them, in this order.
func (a *Account) publishAll(ctx context.Context, texts []string) error {
	for len(texts) > 0 {
		n, size := 0, 0
		for n < len(texts) && (n == 0 || size+len(texts[n]) <= maxPost) {
			size += len(texts[n])
			n++
		}
		if err := a.publish(ctx, texts[:n]...); err != nil {
			return err
		}
		texts = texts[n:]
	}
	return nil
}

// ownInvite reports whether a key of the user himself has signed an invite.
func (p statements) ownInvite(s identity.Signed) bool {
	invite, ok := s.Statement.(identity.InviteStatement)
	return ok && invite.User != "" && slices.ContainsFunc(p, func(by identity.Signed) bool {
		key, ok := by.Statement.(identity.KeyStatement)
		return ok && key.User == invite.User && key.Serial != 0 && s.SignedBy(key.Key)
	})
}

// pen signs statements: with the domain key, or with the key of an admin.
type pen struct {
	key     crypto.Signer
	signers []string // the statements about the admin's key; nil for the domain key
	seen    uint64   // serial of the newest list
}

// pen is what this account signs with. Admins are stated by the domain key alone.
func (a *Account) pen(admins bool) (p pen, err error) {
	lists := a.state.owner.Lists()
	// A list of whoever is struck reaches nobody any more who does not have it.
	p.seen = lists.NewestBeside(a.state.owner.Pinned().Key, lists.Entries())
	if chain := a.state.owner.Chain(); !admins && len(chain) == 2 {
		s, err := a.state.owner.Statement()
		u, _ := s.Statement.(identity.UserStatement)
		if err == nil && u.Role == identity.RoleAdmin {
			p.key, p.signers = a.state.Key, chain
			return p, nil
		}
	}
	p.key, err = a.domainKey()
	if transport.ReasonOf(err) == transport.Policy && !admins {
		err = fail(transport.Policy, "sign statement", errors.New("only an admin whose key is confirmed may do this; "+
			"whoever has the domain key confirms it by hawser user list"))
	}
	return p, err
}

// restate signs again what is said of one subject, with a new serial. What it leaves out are invites: an open code has the
// word of its maker, and dies with it.
func (p pen) restate(says []identity.Statement, serial uint64) (again []identity.Statement, texts []string, err error) {
	for _, s := range says {
		switch is := s.(type) {
		case identity.UserStatement:
			is.Serial, is.Seen = serial, p.seen
			s = is
		case identity.DeviceStatement:
			is.Serial, is.Seen = serial, p.seen
			s = is
		case identity.KeyStatement:
			is.Serial = serial
			s = is
		default:
			continue
		}
		signed, err := identity.Sign(s, p.key)
		if err != nil {
			return nil, nil, err
		}
		again, texts = append(again, s), append(texts, signed.JWS)
	}
	return again, texts, nil
}

// serial is that of the next statement about a subject.
func (a *Account) serial(pool statements, subject identity.Subject) (uint64, error) {
	return a.serialAt(pool, subject, a.m.now())
}

func (a *Account) serialAt(pool statements, subject identity.Subject, at time.Time) (uint64, error) {
	serial, err := identity.NextSerial(a.newest(pool, subject), at)
	if err != nil {
		return 0, fail(transport.Policy, "sign statement", fmt.Errorf("%w; first revoke the admin who has used it up", err))
	}
	return serial, nil
}

// invite gives a code to a subject. The result is what the server gets of it. slot is 0 for a code that is for one, and end
// when it ends.
func (a *Account) invite(code identity.OwnerCode, p pen, subject identity.Signed, slot uint32, serial uint64, end time.Time) (api.NewCode, error) {
	invitation, err := a.state.owner.Pinned().Invite(code, subject, slot, end, serial+1, p.seen, p.key)
	if err != nil {
		return api.NewCode{}, err
	}
	return api.CodeOf(code, invitation, a.rootPin(), p.signers)
}

// endOf is when a code ends that is made together with a statement of this serial.
func endOf(serial uint64, life time.Duration) time.Time {
	return time.UnixMilli(int64(serial)).Add(life)
}

func nameOf(key identity.KeyStatement) identity.Name {
	if key.User != "" {
		return identity.UserName(key.Domain, key.User)
	}
	return identity.DeviceName(key.Domain, key.UID)
}

// soonOver is how long what is stated of this user has to last if it is to be shown as it is: longer than most sessions.
const soonOver = 24 * time.Hour

// askAgain asks for what is stated of this user when what is known here is over, or soon: somebody may have confirmed his
// key, or renewed him, while this PC was off.
func (a *Account) askAgain(ctx context.Context) error {
	self, err := a.state.self()
	if err != nil {
		return err
	}
	if _, err := a.verifier().Judge(a.state.owner.Chain(), self, a.statementTime().Add(soonOver)); err == nil {
		return nil
	}
	_, err = a.read(ctx)
	return err
}

// judge tells what the owner says of the device of an offer, before a byte goes to it. Lists that this end lacks are asked
// for first.
func (a *Account) judge(ctx context.Context, device string, o wire.Offer) (identity.Verdict, error) {
	op := "open session with " + device
	name, err := identity.ParseName(o.Peer)
	if err != nil || name.Kind != identity.KindDevice {
		return identity.Verdict{}, fail(transport.Protocol, op, errors.New("the offer names no device"))
	}
	peer := identity.Peer{Name: name, SPKI: o.PeerSPKI}
	known, err := a.home.readDevices()
	if err != nil {
		return identity.Verdict{}, err
	}
	verdict, err := a.state.owner.Judge(o.Statements, peer, known.serial(name.ID, a.struck), a.m.now())
	// A list that is not here, or a change of the domain key.
	if fault := identity.FaultOf(err); fault == identity.FaultStale || fault == identity.FaultNotStated {
		if _, err := a.read(ctx); err != nil {
			return verdict, err
		}
		verdict, err = a.state.owner.Judge(o.Statements, peer, known.serial(name.ID, a.struck), a.m.now())
	}
	if err == nil {
		err = verdict.Device.Answers(device)
	}
	if err == nil {
		_, typed := splitTyped(device)
		err = known.check(typed, name.ID)
	}
	if err != nil {
		return verdict, fail(refusalOf(err), op, fmt.Errorf("by the owner's statements: %w", err))
	}
	return verdict, a.learn(verdict.Device, o.Statements)
}

// refusalOf is the reason of a refusal by statements. Two faults mean something else where certificates are judged: there,
// this user would be told to log in again.
func refusalOf(err error) transport.Reason {
	switch identity.FaultOf(err) {
	case identity.FaultMalformed:
		return transport.Protocol
	case identity.FaultExpired:
		return transport.NotStated
	}
	return transport.ReasonOf(err)
}

// label names this computer for people who look at a user's keys.
func label() string {
	host, err := os.Hostname()
	if err != nil || identity.CheckDisplayName(host) != nil {
		return ""
	}
	return host
}

// userPath is the path of a user. Checked here, so that a typing error is found without a network.
func userPath(user string) (string, error) {
	if err := identity.CheckLabel(user); err != nil {
		return "", usage("user: %w", err)
	}
	return "/users/" + url.PathEscape(user), nil
}
