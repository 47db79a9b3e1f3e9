package manager

import (
	"context"
	"crypto"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"

	"hawser/identity"
	"hawser/transport"
)

// Login says how to log in.
type Login struct {
	Server string // HOST, HOST:PORT or https://HOST[:PORT]
	Code   string // a login code (identity §7)
	User   string
	// The root: a PEM file, or the SPKI hash in hex. With neither, the root of the account that Home holds.
	RootFile, Pin string
}

// loginRequest and loginAnswer are the bodies of access §6.
type loginRequest struct {
	Code string `json:"code"`
	User string `json:"user"`
	CSR  []byte `json:"csr"`
}

type loginAnswer struct {
	Chain  string           `json:"chain"`
	Domain string           `json:"domain"`
	User   string           `json:"user"`
	Hosts  []string         `json:"hosts"`
	Ports  []transport.Port `json:"ports"`
}

// Login makes a key, has it certified for a login code, and stores the account in Home, replacing one that is there. The
// answer is verified before anything of it is stored. After an answer that was lost the same Login works again within
// 24 h. Errors: *UsageError, *transport.DialError, or a reason such as bad-code.
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

	// From here on the machine is touched.
	key, err := h.beginLogin()
	if err != nil {
		return Info{}, err
	}
	csr, err := identity.NewCSR(key)
	if err != nil {
		return Info{}, err
	}
	found := &memory{}
	var roots *identity.Roots
	dial := func(ctx context.Context) (*transport.Conn, error) {
		conn, err := m.dialer(found).Dial(ctx, target)
		if err == nil {
			roots = conn.Roots
		}
		return conn, err
	}
	var answer loginAnswer
	op := "log in at " + host
	request := loginRequest{Code: code.String(), User: l.User, CSR: csr}
	if err := call(ctx, dial, op, http.MethodPost, "/login", request, &answer); err != nil {
		return Info{}, err
	}
	s, err := m.accept(answer, host, l.User, key, roots)
	if err != nil {
		return Info{}, fail(transport.ReasonOf(err), op, err)
	}
	s.config.Good, _ = found.take()
	return m.account(h, s).Info(), h.endLogin(s)
}

// check reads what was typed, before anything else happens.
func (l Login) check() (host string, code identity.Code, err error) {
	if host, err = parseServer(l.Server); err != nil {
		return "", code, err
	}
	if code, err = identity.ParseCode(l.Code); err != nil {
		return "", code, usage("read code: %w", err)
	}
	if err = identity.CheckLabel(l.User); err != nil {
		return "", code, usage("user: %w", err)
	}
	if l.RootFile != "" && l.Pin != "" {
		return "", code, usage("log in: want one of --root and --pin, not both")
	}
	return host, code, nil
}

// target is the server to log in at, with the root that it must prove.
func (l Login) target(h home, host string) (t transport.Target, err error) {
	t = transport.Target{Hosts: []string{host}, Ports: transport.DefaultPorts(), ALPN: transport.ALPNAPI,
		Name: identity.Name{Kind: identity.KindAccess}}
	switch {
	case l.Pin != "":
		if t.Pin, err = identity.ParseSPKI(l.Pin); err != nil {
			err = usage("pin: %w", err)
		}
	case l.RootFile != "":
		t.Roots, err = readRootFile(l.RootFile)
	default:
		t.Roots, err = h.readRoots()
		if errors.Is(err, fs.ErrNotExist) {
			err = usage("log in: --root FILE or --pin SHA256 is needed, to know the server by")
		}
		err = asUsage(err)
	}
	return t, err
}

// readRootFile reads a root that anybody may read.
func readRootFile(path string) (*identity.Roots, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &UsageError{err}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, &UsageError{err}
	}
	roots, err := identity.ParseRoots(b)
	if err != nil {
		return nil, usage("read %s: %w", path, err)
	}
	return roots, nil
}

// beginLogin makes the directory if need be and returns the key to certify. The lock is not held while the server answers:
// other commands of the present account go on.
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

// accept turns the server's answer into an account, if it is for our key and for the user that asked.
func (m *Manager) accept(answer loginAnswer, host, user string, key crypto.Signer, roots *identity.Roots) (s state, err error) {
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
	return state{key, chain, roots, config{Hosts: hosts, Ports: ports, Domain: answer.Domain, User: user}}, nil
}
