package manager

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/answer"
	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/transport"
	"hawser/transport/api"
)

func TestLoginMakesAnAccountThatWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		info, err := m.Login(t.Context(), Login{Server: "https://" + accessAddr.String() + "/", Code: strings.ToLower(f.code.String()), User: "admin", Domain: "default", Pin: f.pin()})
		if err != nil {
			t.Fatal(err)
		}
		if info.Domain != "default" || info.User != "admin" || info.Home != m.Home || !info.NotAfter.Equal(time.Now().Add(12*time.Hour)) {
			t.Errorf("info %+v", info)
		}
		for _, name := range []string{keyFile, identityFile, rootFile, configFile} {
			if s, err := os.Stat(filepath.Join(m.Home, name)); err != nil || s.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v, %v", name, s, err)
			}
		}
		if _, err := os.Stat(filepath.Join(m.Home, pendingFile)); err == nil {
			t.Error("the key of the login is still there as well")
		}
		a, err := m.Open()
		if err != nil {
			t.Fatal(err)
		}
		if a.Info() != info {
			t.Errorf("opened %+v, logged in %+v", a.Info(), info)
		}
		if devices, err := a.Devices(t.Context()); err != nil || len(devices) != 1 || devices[0].UID != f.uid {
			t.Errorf("devices %+v, %v", devices, err)
		}
	})
}

// What the server says is verified before any of it is kept.
func TestLoginRefusesAnAnswerThatIsNotForUs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		good := f.answers["POST /login"]
		certify := func(pki *identitytest.PKI, name identity.Name, own bool) func(http.ResponseWriter, *http.Request) {
			return func(w http.ResponseWriter, r *http.Request) {
				in := readLogin(r)
				pub := must(identity.ParseCSR(in.CSR))
				if !own {
					pub = identitytest.NewKey().Public()
				}
				chain := pki.Chain(pub, name, 0, time.Hour)
				jsonAnswer(api.LoginAnswer{Chain: string(identity.MarshalChain(chain)), Domain: "default", User: in.User})(w, r)
			}
		}
		admin := identity.UserName("default", "admin")
		cases := []struct {
			name   string
			answer http.HandlerFunc
			want   transport.Reason
		}{
			{"wrong code", problemAnswer(403, "bad-code", "no such code"), transport.BadCode},
			{"another user's certificate", certify(f.pki, identity.UserName("default", "eve"), true), transport.WrongName},
			{"a device's certificate", certify(f.pki, identity.DeviceName("default", f.uid), true), transport.WrongKind},
			{"another key", certify(f.pki, admin, false), transport.BadCertificate},
			{"another root", certify(identitytest.New(time.Now()), admin, true), transport.WrongRoot},
			{"another user", jsonAnswer(api.LoginAnswer{Domain: "default", User: "eve"}), transport.Protocol},
			{"a domain that is none", jsonAnswer(api.LoginAnswer{Domain: "../x", User: "admin"}), transport.Protocol},
			{"no chain", jsonAnswer(api.LoginAnswer{Domain: "default", User: "admin"}), transport.BadCertificate},
			{"no JSON", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) }, transport.Protocol},
			{"an error that is none of ours", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 500) }, transport.Protocol},
			{"a redirect", func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "https://192.0.2.66/", http.StatusTemporaryRedirect)
			}, transport.Protocol},
			{"too much", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, maxAnswerBytes+1)) }, transport.Protocol},
		}
		m := f.manager()
		login := f.founder()
		for _, tt := range cases {
			f.answer("POST /login", tt.answer)
			_, err := m.Login(t.Context(), login)
			if got := transport.ReasonOf(err); got != tt.want {
				t.Errorf("%s: reason %q (%v), want %q", tt.name, got, err, tt.want)
			}
			if _, err := m.Open(); ExitCode(err) != answer.ExitNotEnrolled {
				t.Errorf("%s: something was kept: %v", tt.name, err)
			}
		}
		f.answer("POST /login", good)
		if _, err := m.Login(t.Context(), login); err != nil {
			t.Errorf("the same login without a fault: %v", err)
		}
		t.Attr("id", "A1-refuse")
		t.Attr("cases", fmt.Sprint(len(cases)))
	})
}

// A power cut, or a lost answer, between the request and its end: the same command works again with the same key.
func TestLoginThatWasCutOffUsesItsKeyAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		var keys []string
		good := f.answers["POST /login"]
		f.answer("POST /login", func(w http.ResponseWriter, r *http.Request) {
			keys = append(keys, string(must(x509.MarshalPKIXPublicKey(must(identity.ParseCSR(readLogin(r).CSR))))))
			panic(http.ErrAbortHandler)
		})
		login := f.founder()
		for range 2 {
			if _, err := m.Login(t.Context(), login); ExitCode(err) != answer.ExitUnreachable {
				t.Fatalf("the answer was lost: %v", err)
			}
		}
		if keys[0] != keys[1] {
			t.Error("the second try made another key")
		}
		f.answer("POST /login", good)
		if _, err := m.Login(t.Context(), login); err != nil {
			t.Fatal(err)
		}
		first := must(m.Open()).Info().SPKI
		if _, err := m.Login(t.Context(), login); err != nil {
			t.Fatal(err)
		}
		if must(m.Open()).Info().SPKI == first {
			t.Error("a login after one that was done kept its key")
		}
	})
}

func TestLoginOfWrongServerIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		pin := identitytest.New(time.Now()).Pin().String()
		_, err := m.Login(t.Context(), Login{Server: accessAddr.String(), Code: f.code.String(), User: "admin", Domain: "default", Pin: pin})
		if transport.ReasonOf(err) != transport.WrongRoot || ExitCode(err) != answer.ExitRefused || isFinal(err) {
			t.Errorf("another pin: %v", err)
		}
		if f.called("POST /login") != 0 {
			t.Error("the code was told to a server that had not proven itself")
		}
		t.Attr("id", "A1-refuse")
		t.Attr("cases", "1")
	})
}

func TestLoginUsageErrorsTouchNothing(t *testing.T) {
	pin, code := strings.Repeat("ab", 32), identity.NewCode().String()
	cases := []Login{
		{Server: "", Code: code, User: "admin", Domain: "default", Pin: pin},
		{Server: "http://h", Code: code, User: "admin", Domain: "default", Pin: pin},
		{Server: "https://h/path", Code: code, User: "admin", Domain: "default", Pin: pin},
		{Server: "h:0", Code: code, User: "admin", Domain: "default", Pin: pin},
		{Server: "h:99999", Code: code, User: "admin", Domain: "default", Pin: pin},
		{Server: "a b", Code: code, User: "admin", Domain: "default", Pin: pin},
		{Server: "h", Code: "", User: "admin", Domain: "default", Pin: pin},
		{Server: "h", Code: code[:len(code)-1], User: "admin", Domain: "default", Pin: pin},
		{Server: "h", Code: code, User: "Admin!", Domain: "default", Pin: pin},
		{Server: "h", Code: code, User: "", Domain: "default", Pin: pin},
		{Server: "h", Code: code, User: "admin", Domain: "default", Pin: "abc"},
		{Server: "h", Code: code, User: "admin"},
		{Server: "h", Code: code, User: "admin", Domain: "default", Pin: pin, RootFile: "root.pem"},
		{Server: "h", Code: code, User: "admin", Domain: "default", RootFile: "missing.pem"},
		{Server: "h", Code: code, User: "admin", Domain: "default", RootFile: os.DevNull},
		{Server: "h", Code: code, User: "admin", Domain: "default", Pin: pin, Proxy: []string{"always"}},
		{Server: "h", Code: code, User: "admin", Domain: "default", Pin: pin, Proxy: []string{"none", "http://p"}},
		{Server: "h", Code: code, User: "admin", Domain: "default", Pin: pin, Proxy: []string{"http://ann:secret@p"}},
	}
	for _, l := range cases {
		m := &Manager{Home: filepath.Join(t.TempDir(), "home")}
		if _, err := m.Login(t.Context(), l); ExitCode(err) != answer.ExitUsage {
			t.Errorf("%+v: %v, want a usage error", l, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows a password: %v", err)
		}
		if _, err := os.Stat(m.Home); err == nil {
			t.Errorf("%+v: made a home", l)
		}
	}
	t.Attr("id", "A1-input")
	t.Attr("cases", fmt.Sprint(len(cases)))
}

func TestHomeIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		cases := []struct {
			name  string
			spoil func(home string) error
			want  int
		}{
			{"nothing spoilt", func(string) error { return nil }, answer.ExitDone},
			{"directory open to others", func(h string) error { return os.Chmod(h, 0o755) }, answer.ExitUsage},
			{"key open to others", func(h string) error { return os.Chmod(h+"/"+keyFile, 0o644) }, answer.ExitUsage},
			{"no key", func(h string) error { return os.Remove(h + "/" + keyFile) }, answer.ExitNotEnrolled},
			{"no certificate", func(h string) error { return os.Remove(h + "/" + identityFile) }, answer.ExitNotEnrolled},
			{"no root", func(h string) error { return os.Remove(h + "/" + rootFile) }, answer.ExitNotEnrolled},
			{"no config", func(h string) error { return os.Remove(h + "/" + configFile) }, answer.ExitNotEnrolled},
			{"no home", os.RemoveAll, answer.ExitNotEnrolled},
			{"another key", func(h string) error {
				return os.WriteFile(h+"/"+keyFile, must(identity.MarshalKey(must(identity.NewKey()))), 0o600)
			}, answer.ExitNotEnrolled},
			{"key that is none", func(h string) error { return os.WriteFile(h+"/"+keyFile, []byte("key"), 0o600) }, answer.ExitUsage},
			{"another root", func(h string) error {
				return os.WriteFile(h+"/"+rootFile, identity.MarshalChain(identitytest.New(time.Now()).Issuing.Chain), 0o600)
			}, answer.ExitNotEnrolled},
			{"config of another user", func(h string) error {
				return os.WriteFile(h+"/"+configFile, []byte(`{"hosts":["h"],"ports":[443],"domain":"default","user":"eve"}`), 0o600)
			}, answer.ExitNotEnrolled},
			{"config with an unknown key", func(h string) error {
				return os.WriteFile(h+"/"+configFile, []byte(`{"hosts":["h"],"port":443}`), 0o600)
			}, answer.ExitUsage},
			{"config with a bad proxy", func(h string) error {
				return os.WriteFile(h+"/"+configFile, []byte(`{"hosts":["h"],"ports":[443],"domain":"default","user":"admin","proxy":["https://ann:secret@p"]}`), 0o600)
			}, answer.ExitUsage},
			{"config without hosts", func(h string) error { return os.WriteFile(h+"/"+configFile, []byte(`{}`), 0o600) }, answer.ExitUsage},
			{"config that is none", func(h string) error { return os.WriteFile(h+"/"+configFile, []byte("hosts"), 0o600) }, answer.ExitUsage},
			{"config without end", func(h string) error {
				return os.WriteFile(h+"/"+configFile, make([]byte, credential.MaxFileBytes+1), 0o600)
			}, answer.ExitUsage},
			{"file in its place", func(h string) error {
				return errors.Join(os.RemoveAll(h), os.WriteFile(h, nil, 0o600))
			}, answer.ExitUsage},
		}
		for _, tt := range cases {
			m := f.manager()
			f.loggedIn(m)
			if err := tt.spoil(m.Home); err != nil {
				t.Fatal(err)
			}
			_, err := m.Open()
			if got := ExitCode(err); got != tt.want {
				t.Errorf("%s: exit code %d (%v), want %d", tt.name, got, err, tt.want)
			}
		}
		t.Attr("id", "A1-input")
		t.Attr("cases", fmt.Sprint(len(cases)-1))
	})
}

// An account keeps what was said of proxies, also through a login that says nothing. A password may stand in its file alone.
func TestAccountKeepsItsProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		m := f.manager()
		login := func(proxy ...string) string {
			t.Helper()
			l := Login{Server: accessAddr.String(), Code: f.code.String(), User: "admin", Domain: "default", Pin: f.pin(), Proxy: proxy}
			if _, err := m.Login(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			a := must(m.Open())
			defer a.Close()
			return must(a.state.config.proxy()).String()
		}
		if got := login(); got != "auto" {
			t.Errorf("a first login without a word says %s", got)
		}
		if got := login("none"); got != "none" {
			t.Errorf("the login said none, the account says %s", got)
		}
		if got := login(); got != "none" {
			t.Errorf("a login without a word has made it %s", got)
		}
		file := filepath.Join(m.Home, configFile)
		text := strings.Replace(string(must(os.ReadFile(file))), `"none"`, `"http://ann:secret@192.0.2.77:3128"`, 1)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		a := must(m.Open())
		defer a.Close()
		if got := fmt.Sprint(a.dialer.Proxies().All()); got != "[http://192.0.2.77:3128]" || !a.dialer.Proxies().First {
			t.Errorf("the account has the proxies %s", got)
		}
		if _, err := a.Devices(t.Context()); err != nil { // which nobody is, so after 2 s it goes directly
			t.Error(err)
		}
	})
}

// What an exposed directory says must be told apart from a missing login.
func TestExposedHomeSaysWhat(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := (&Manager{Home: dir}).Open()
	if !errors.Is(err, durable.ErrExposed) {
		t.Errorf("%v, want durable.ErrExposed", err)
	}
}
