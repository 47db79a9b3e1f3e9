package manager

import (
	"context"
	"crypto"
	"errors"
	"io/fs"
	"net/http"
	"slices"

	"hawser/identity"
	"hawser/internal/credential"
	"hawser/transport"
	"hawser/transport/api"
)

// Login says how to log in.
type Login struct {
	Server string // HOST, HOST:PORT or https://HOST[:PORT]
	Code   string // a login code (identity §7)
	User   string
	// The root: a PEM file, or the SPKI hash in hex. With neither, the root of the account that Home holds.
	RootFile, Pin string
	// Proxy is auto, none, or URLs without name and password. Nil: that of the account that Home holds.
	Proxy []string
}

// Login makes a key, has it certified for a login code, and stores the account in Home, replacing one that is there.
// The answer is verified before any of it is stored. When the answer is lost, the same Login works again within 24 h.
// Errors: *answer.UsageError, *transport.DialError, or a reason such as bad-code. The key is on the disk before it is
// sent: after a crash the same code is good for the same key only (access §6).
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
	had := config{Proxy: l.Proxy}
	if l.Proxy == nil {
		had, _ = h.readConfig() // of the account before; a bad one is replaced
	}
	proxy, err := had.proxy()
	if err != nil {
		return Info{}, asUsage(err)
	}

	// Everything before this has changed nothing on disk.
	key, err := h.beginLogin()
	if err != nil {
		return Info{}, err
	}
	csr, err := identity.NewCSR(key)
	if err != nil {
		return Info{}, err
	}
	// Of its own: addresses of the account that is replaced may be another infrastructure's.
	found := &goodAddrs{}
	var roots *identity.Roots
	dial := func(ctx context.Context) (*transport.Conn, error) {
		conn, err := m.dialer(found, proxy).Dial(ctx, target)
		if err == nil {
			roots = conn.Roots
		}
		return conn, err
	}
	var answer api.LoginAnswer
	op := "log in at " + host
	request := api.LoginRequest{Code: code.String(), User: l.User, CSR: csr}
	if err := call(ctx, dial, op, http.MethodPost, "/login", request, &answer); err != nil {
		return Info{}, err
	}
	s, err := m.accept(answer, host, l.User, key, roots)
	if err != nil {
		return Info{}, fail(transport.ReasonOf(err), op, err)
	}
	s.config.Good, _ = found.take()
	s.config.Proxy = had.Proxy
	return m.account(h, s).Info(), h.endLogin(s)
}

// check parses the input before anything else is done. A code with a typing error is found by its check character,
// without a try at the server, which counts them.
func (l Login) check() (host string, code identity.Code, err error) {
	if host, err = parseServer(l.Server); err != nil {
		return "", code, err
	}
	if l.Code == "" {
		return "", code, usage("log in: want the login code: --code CODE, as hawser-server init printed it")
	}
	if code, err = identity.ParseCode(l.Code); err != nil {
		return "", code, usage("read code: %w", err)
	}
	if err = identity.CheckLabel(l.User); err != nil {
		return "", code, usage("user: %w", err)
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

// beginLogin makes the directory if it is missing and returns the key to certify. It releases the lock before the request,
// so that other commands of the present account are not blocked. Two logins with one code at once get one key, and the
// server takes the second for a repetition of the first.
func (h home) beginLogin() (crypto.Signer, error) {
	if err := h.create(); err != nil {
		return nil, err
	}
	unlock, err := h.lock()
	if err != nil {
		return nil, asUsage(err)
	}
	defer unlock.Close()
	return h.pendingKey()
}

// endLogin replaces the account on disk.
func (h home) endLogin(s state) error {
	unlock, err := h.lock()
	if err != nil {
		return err
	}
	defer unlock.Close()
	return h.store(s)
}

// accept verifies that the server's answer is for our key and user, and makes an account of it. The domain is the
// server's to say, since the code belongs to one; the user is not.
func (m *Manager) accept(answer api.LoginAnswer, host, user string, key crypto.Signer, roots *identity.Roots) (s state, err error) {
	if answer.User != user || identity.CheckLabel(answer.Domain) != nil {
		return s, fail(transport.Protocol, "read answer", errors.New("it is for another user"))
	}
	chain, err := userChain(answer.Chain, roots, key, identity.UserName(answer.Domain, user), m.now())
	if err != nil {
		return s, err
	}
	hosts, ports, ok := mergeHosts(host, answer.Hosts, answer.Ports)
	if !ok {
		return s, fail(transport.Protocol, "read answer", errors.New("it names hosts or ports that cannot be"))
	}
	return state{credential.Credential{Key: key, Chain: chain}, roots, config{Hosts: hosts, Ports: ports, Domain: answer.Domain, User: user}}, nil
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
