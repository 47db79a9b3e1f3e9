package manager

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"time"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/internal/owner"
	"hawser/transport"
	"hawser/transport/api"
)

// Login says how to log in.
type Login struct {
	Server string // HOST, HOST:PORT or https://HOST[:PORT]
	// Code is that of a founder, which a server has made, or an owner's, which an admin's Manager has made. The class of the
	// code says which: a founder is asked for the names, and everybody else is told his own.
	Code         string
	User, Domain string // of a founder
	// The root: a PEM file, or the SPKI hash in hex. With neither, the root of the account that Home holds.
	RootFile, Pin string
	// Proxy is auto, none, or URLs without name and password. Nil: that of the account that Home holds.
	Proxy []string
	// Ports are those on which the servers answer; none: the default ones, or that of Server. Private says that their
	// addresses are private; nil: as the account that Home holds.
	Ports   []uint
	Private *bool
}

// Login makes a key, has it certified for a code, and stores the account in Home, replacing one that is there. A founder also
// makes the domain key, unless Home has it, and states himself. The answer is verified before any of it is stored: to a
// founder nobody says what the domain key is, and to everybody else whoever made the code does, through a server that cannot
// change it (identity §13). When the answer is lost, the same Login works again within 24 h. Errors: *answer.UsageError,
// *transport.DialError, or a reason such as bad-code. The keys are on the disk before they are sent: after a crash the same
// code is good for the same key only (access §6).
func (m *Manager) Login(ctx context.Context, l Login) (Info, error) {
	host, code, err := l.check()
	if err != nil {
		return Info{}, err
	}
	h, err := m.home()
	if err != nil {
		return Info{}, err
	}
	target, err := l.target(h, host)
	if err != nil {
		return Info{}, err
	}
	had, _ := h.readConfig() // of the account before; a bad one is replaced
	had = l.over(had, target)
	proxy, err := had.proxy()
	if err != nil {
		return Info{}, asUsage(err)
	}

	// Of its own: addresses of the account that is replaced may be another infrastructure's.
	found := &goodAddrs{}
	var roots *identity.Roots
	dial := func(ctx context.Context) (*transport.Conn, error) {
		conn, err := m.dialer(found, proxy, had.bounds()).Dial(ctx, target)
		if err == nil {
			roots = conn.Roots
		}
		return conn, err
	}
	op := "log in at " + host
	// Everything before this has changed nothing on disk.
	key, domain, request, err := m.beginLogin(h, code)
	if err != nil {
		return Info{}, err
	}
	if domain != nil { // a founder states himself, with dates
		if err := m.askTime(ctx, op, dial); err != nil {
			return Info{}, err
		}
		request.User = l.User
		if request.DomainKey, request.Statements, err = m.found(domain, l, key); err != nil {
			return Info{}, err
		}
	}
	var answer api.LoginAnswer
	err = call(ctx, dial, op, http.MethodPost, "/login", request, &answer)
	if transport.ReasonOf(err) == transport.DomainTaken && code.founder != "" {
		err = domainTaken(h, l, request, op)
	}
	if err != nil {
		return Info{}, err
	}
	s, learnt, err := m.accept(answer, host, code, request, key, roots)
	if err != nil {
		return Info{}, fail(transport.ReasonOf(err), op, err)
	}
	s.config.Good, _ = found.take()
	s.config.Proxy, s.config.Private, s.config.Own = had.Proxy, had.Private, had.Own
	if s, err = h.endLogin(s, learnt, m.now()); err != nil {
		return Info{}, err
	}
	a := m.account(h, s)
	if learnt.own != "" {
		// The server needs it for others. If this fails, the next command says so, and the same login cures it.
		if err := a.publish(ctx, learnt.own); err != nil {
			return Info{}, err
		}
	}
	a.remindOfCopy()
	return a.Info(), nil
}

// over is a configuration with what a login says of it.
func (l Login) over(had config, target transport.Target) config {
	if l.Proxy != nil {
		had.Proxy = l.Proxy
	}
	if l.Private != nil {
		had.Private = *l.Private
	}
	had.Hosts, had.Own = target.Hosts, nil
	if len(l.Ports) > 0 {
		had.Own = target.Ports
	}
	return had
}

// loginCode is a code of either class.
type loginCode struct {
	founder string // a server's code
	owner   identity.OwnerCode
}

// check parses the input before anything else is done. A code with a typing error is found by its check character,
// without a try at the server, which counts them.
func (l Login) check() (host string, code loginCode, err error) {
	if host, err = parseServer(l.Server); err != nil {
		return "", code, err
	}
	switch {
	case l.Code == "":
		return "", code, usage("log in: want the code: --code CODE, as hawser-server init or hawser user add printed it")
	case identity.IsOwnerCode(l.Code):
		if code.owner, err = identity.ParseOwnerCode(l.Code); err != nil {
			return "", code, usage("read code: %w", err)
		}
	default:
		parsed, err := identity.ParseCode(l.Code)
		if err != nil {
			return "", code, usage("read code: %w", err)
		}
		code.founder = parsed.String()
		if err = errors.Join(identity.CheckLabel(l.User), identity.CheckLabel(l.Domain)); err != nil {
			return "", code, usage("a founder's user and domain: %w", err)
		}
	}
	// Two that differ would make it chance which one is believed.
	if l.RootFile != "" && l.Pin != "" {
		return "", code, usage("log in: want one of --root and --pin, not both")
	}
	if l.Proxy != nil {
		if _, err := transport.ParseProxyFlag(l.Proxy, "the environment, as https_proxy"); err != nil {
			return "", code, usage("%w", err)
		}
	}
	return host, code, nil
}

// target is the server to log in at, with the root that it must prove. Without any root the first server that answers
// would be believed.
func (l Login) target(h home, host string) (t transport.Target, err error) {
	t = transport.Target{Hosts: []string{host}, Ports: transport.DefaultPorts(), ALPN: transport.ALPNAPI,
		Name: identity.Name{Kind: identity.KindAccess}}
	if len(l.Ports) > 0 {
		if t.Ports, err = Ports(l.Ports); err != nil {
			return t, err
		}
	}
	switch {
	case l.Pin != "":
		if t.Pin, err = identity.ParsePin(l.Pin); err != nil {
			err = usage("pin: %w", err)
		}
	case l.RootFile != "":
		t.Roots, err = credential.LoadPublic(l.RootFile, identity.ParseRoots)
		err = asUsage(err)
	default:
		t.Roots, err = h.readRoots()
		if errors.Is(err, fs.ErrNotExist) {
			err = usage("log in: --root FILE or --pin SHA256 is needed, to know the server by")
		}
		err = asUsage(err)
	}
	return t, err
}

// beginLogin makes the directory if it is missing, the key to certify, and a founder's domain key, and begins the request. It
// releases the lock before the request, so that other commands of the present account are not blocked. Two logins with one
// code at once get one key, and the server takes the second for a repetition of the first.
func (m *Manager) beginLogin(h home, code loginCode) (key, domain crypto.Signer, r api.LoginRequest, err error) {
	if err := h.create(); err != nil {
		return nil, nil, r, err
	}
	unlock, err := h.lock()
	if err != nil {
		return nil, nil, r, asUsage(err)
	}
	defer unlock.Close()
	if key, err = h.pendingKey(); err != nil {
		return nil, nil, r, err
	}
	if r.CSR, err = identity.NewCSR(key); err != nil {
		return nil, nil, r, err
	}
	if code.founder == "" {
		auth := code.owner.Auth()
		r.Lookup, r.Auth = code.owner.LookupID(), auth[:]
		return key, nil, r, nil
	}
	r.Code = code.founder
	domain, err = m.makeDomainKey(h)
	return key, domain, r, err
}

// found states the founder, an admin for a year, and his key.
func (m *Manager) found(domain crypto.Signer, l Login, key crypto.Signer) (pub identity.PublicKey, texts []string, err error) {
	if pub, err = identity.NewPublicKey(domain.Public()); err != nil {
		return pub, nil, err
	}
	own, err := identity.NewPublicKey(key.Public())
	if err != nil {
		return pub, nil, err
	}
	now := m.now()
	serial, err := identity.NextSerial(0, now)
	if err != nil {
		return pub, nil, err
	}
	for _, s := range []identity.Statement{
		identity.UserStatement{Domain: l.Domain, User: l.User, Role: identity.RoleAdmin, Exp: now.Add(userLife).Unix(), Serial: serial},
		identity.KeyStatement{Domain: l.Domain, Subject: identity.Subject{User: l.User}, Key: own, Label: label(), Serial: serial},
	} {
		signed, err := identity.Sign(s, domain)
		if err != nil {
			return pub, nil, err
		}
		texts = append(texts, signed.JWS)
	}
	return pub, texts, nil
}

// learnt is what a login says of the owner.
type learnt struct {
	key        identity.PublicKey
	statements []string
	own        string // the user's own hawser-key, which the server does not have yet; empty for a founder
}

// endLogin replaces the account on disk. What is known of the owner comes first: without it the account is none.
func (h home) endLogin(s state, l learnt, now time.Time) (state, error) {
	unlock, err := h.lock()
	if err != nil {
		return s, err
	}
	defer unlock.Close()
	self, err := s.self()
	if err != nil {
		return s, err
	}
	o, err := owner.Create(string(h), self, l.key)
	if identity.FaultOf(err) != "" {
		return s, fail(transport.ReasonOf(err), "log in", err)
	}
	if err != nil {
		return s, asUsage(err)
	}
	if l.own != "" {
		if err := o.EnrolledBy(l.statements, now); err != nil {
			return s, asUsage(err)
		}
	}
	if _, err := o.Take(l.statements, now); err != nil {
		return s, asUsage(err)
	}
	o.Lock, s.owner = h.lock, o
	return s, h.store(s)
}

// accept verifies that the server's answer is for our key and for whom it must be, and makes an account of it. The domain and
// the name are the server's to say only as far as the statements say the same.
func (m *Manager) accept(answer api.LoginAnswer, host string, code loginCode, r api.LoginRequest, key crypto.Signer, roots *identity.Roots) (s state, l learnt, err error) {
	if errors.Join(identity.CheckLabel(answer.Domain), identity.CheckLabel(answer.User)) != nil {
		return s, l, fail(transport.Protocol, "read answer", errors.New("it is for nobody"))
	}
	if code.founder != "" && answer.User != r.User {
		return s, l, fail(transport.Protocol, "read answer", errors.New("it is for another user"))
	}
	name := identity.UserName(answer.Domain, answer.User)
	chain, err := userChain(answer.Chain, roots, key, name, m.now())
	if err != nil {
		return s, l, err
	}
	l = learnt{key: r.DomainKey, statements: r.Statements}
	own := r.Statements
	if code.founder == "" {
		root := identity.CertSPKI(roots.Certificates()[0])
		if l.key, l.statements, err = answer.Open(code.owner, root, name, key.Public(), label()); err != nil {
			return s, l, fail(transport.NotStated, "read answer", fmt.Errorf("whoever made the code has not said this, and nothing of it is stored: %w", err))
		}
		own, l.own = l.statements, l.statements[1]
		l.statements = append(slices.Clone(own), answer.Lists...)
	}
	// By the domain key that is pinned now: a founder's own, or the one that the code vouches for. A list may come later.
	spki, err := identity.SPKIOf(key.Public())
	if err != nil {
		return s, l, err
	}
	v := identity.Verifier{Pinned: identity.Pinned{Domain: answer.Domain, Key: l.key}}
	if _, err = v.Judge(own, identity.Peer{Name: name, SPKI: spki}, m.now()); err != nil && identity.FaultOf(err) != identity.FaultStale {
		return s, l, fail(transport.ReasonOf(err), "read answer", err)
	}
	hosts, ports, ok := mergeHosts(host, answer.Hosts, answer.Ports)
	if !ok {
		return s, l, fail(transport.Protocol, "read answer", errors.New("it names hosts or ports that cannot be"))
	}
	s = state{Credential: credential.Credential{Key: key, Chain: chain}, roots: roots,
		config: config{Hosts: hosts, Ports: ports, Domain: answer.Domain, User: answer.User}}
	return s, l, nil
}

// Limits of what a server may name: the search tries every host on every port (wire §8).
const (
	maxHosts = 16
	maxPorts = 16
)

// parseServer turns what a user types, HOST, HOST:PORT or https://HOST[:PORT], into a host of a transport.Target.
func parseServer(s string) (string, error) {
	host, err := transport.ParseHost(s)
	if err != nil {
		return "", usage("server: %w", err)
	}
	return host, nil
}

// mergeHosts puts the host that worked before those that the server names. ok is false when one of these, or a port, is
// invalid.
func mergeHosts(used string, named []string, ports []transport.Port) (hosts []string, _ []transport.Port, ok bool) {
	if len(named) > maxHosts || len(ports) > maxPorts || slices.Contains(ports, 0) {
		return nil, nil, false
	}
	// First, because it is known to work from here; the server may name itself by an address of its own network.
	hosts = []string{used}
	for _, h := range named {
		if _, _, err := transport.SplitHost(h); err != nil {
			return nil, nil, false
		}
		if !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	if len(ports) == 0 {
		ports = transport.DefaultPorts()
	}
	return hosts, ports, true
}
