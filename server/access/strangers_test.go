package access

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/server/gate"
	"hawser/transport"
	"hawser/transport/api"
	"hawser/transport/wire"
)

// full takes all places of a gate, from so many sources.
func full(g *gate.Gate) (leave func()) {
	var taken []*gate.Place
	for i := 0; ; i++ {
		p := g.Enter(source{byte(i >> 8), byte(i)}, func() {})
		if p == nil || i == 1<<12 {
			return func() {
				for _, p := range taken {
					p.Leave()
				}
			}
		}
		taken = append(taken, p)
	}
}

// source is the address of somebody.
type source [2]byte

// Network makes it an address.
func (source) Network() string { return "tcp" }

func (s source) String() string {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, s[0], s[1]}), 1).String()
}

// An API connection without a certificate has one request, or 15 s. One with a user's certificate stays.
func TestAnonymousAPIConnectionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		ask := func(conn io.ReadWriter, path string) (*http.Response, error) {
			_, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n")
			if err != nil {
				return nil, err
			}
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err == nil {
				_, err = io.Copy(io.Discard, response.Body)
			}
			return response, err
		}
		admin := w.dial(transport.ALPNAPI, w.login())
		for range 3 {
			if r, err := ask(admin, "/api/v1/devices"); err != nil || r.Close {
				t.Fatalf("a user's connection: %v, %v", r, err)
			}
		}
		once := w.dial(transport.ALPNAPI, nil)
		if r, err := ask(once, "/x"); err != nil || !r.Close || r.StatusCode != http.StatusNotFound {
			t.Fatalf("the one request: %v, %v", r, err)
		}
		if _, err := once.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("after it: %v", err)
		}
		slow, began := w.dial(transport.ALPNAPI, nil), time.Now()
		_, err := io.WriteString(slow, "POST /api/v1/login HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{")
		if err != nil {
			t.Fatal(err)
		}
		if _, err = io.ReadAll(slow); time.Since(began) != anonymousTime {
			t.Errorf("a slow body was cut after %v: %v", time.Since(began), err)
		}
		if _, err := ask(admin, "/api/v1/devices"); err != nil {
			t.Errorf("the user's connection: %v", err)
		}
		// His key is good, and nobody knows him any more.
		gone := w.dial(transport.ALPNAPI, w.certified(identity.UserName("acme", "gone"), 0, time.Hour))
		began = time.Now()
		if r, err := ask(gone, "/api/v1/devices"); err != nil || r.StatusCode != http.StatusUnauthorized {
			t.Errorf("a user who is not in the registry: %v, %v", r, err)
		}
		if _, err := gone.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || time.Since(began) != anonymousTime {
			t.Errorf("his connection: %v after %v", err, time.Since(began))
		}
	})
}

// Who has shown a certificate has places apart from those of strangers until it is known what he wants. When they are
// taken, he is told when to come again; strangers find theirs, and who is attached already stays.
func TestWhoHasNotSaidWhatHeWantsIsToldToComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		device, relay := w.addDevice(admin, "press 1"), w.enrollRelay()
		attached := w.control(w.addDevice(admin, "press 2"), hello("01"))
		code, _ := w.addPending(admin, "press 3")
		leave := full(w.server.places.purposes)
		for name, who := range map[string]*someone{"a device": device, "a relay": relay} {
			conn := w.dial(transport.ALPNAccess, who)
			f, err := wire.Read(conn)
			if err != nil || f.Type != wire.TypeRefuse || f.Refusal().Reason != transport.Busy ||
				f.Refusal().RetryAfter != strangerRetry {
				t.Errorf("%s hears %v, %v", name, f, err)
			}
			conn.Close()
		}
		response, raw := w.callRaw(admin, http.MethodGet, api.Prefix+"/devices", nil)
		if response.StatusCode != http.StatusTooManyRequests || response.Header.Get("Retry-After") != "10" {
			t.Errorf("a user: %d %v %s", response.StatusCode, response.Header, raw)
		}
		if err := w.enroll(code, newSomeone()); err != nil {
			t.Errorf("a stranger with a code: %v", err)
		}
		status := w.call(nil, http.MethodPost, api.Prefix+"/login", api.LoginRequest{}, nil)
		if status != http.StatusBadRequest {
			t.Errorf("a stranger at the API is answered %d", status)
		}
		if err := wire.Write(attached, wire.TypePing, wire.Ping(time.Minute)); err != nil {
			t.Error(err)
		}
		attached.read(wire.TypePong, nil)
		leave()
		w.control(device, hello("01"))
		if status := w.call(admin, http.MethodGet, api.Prefix+"/devices", nil, nil); status != http.StatusOK {
			t.Errorf("a user is answered %d when there are places", status)
		}
	})
}

// Who finds no place is told when to come again, each by the places of his own kind.
func TestStrangersAreToldToComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		admin := w.login()
		device := w.addDevice(admin, "press 1")
		other := w.addDevice(admin, "press 2")
		attached := w.control(device, hello("01"))
		p := w.server.places
		leave := full(p.anonymous)
		defer full(p.strangers)()
		response, raw := w.callRaw(nil, http.MethodPost, api.Prefix+"/login", api.LoginRequest{})
		if response.StatusCode != http.StatusTooManyRequests || response.Header.Get("Retry-After") != "10" {
			t.Errorf("login: %d %v %s", response.StatusCode, response.Header, raw)
		}
		stranger := w.dial(transport.ALPNAccess, nil)
		f, err := wire.Read(stranger)
		if err != nil || f.Type != wire.TypeRefuse || f.Refusal().Reason != transport.Busy || f.Refusal().RetryAfter != strangerRetry {
			t.Errorf("a stranger hears %v, %v", f, err)
		}
		if status := w.call(admin, http.MethodGet, api.Prefix+"/devices", nil, nil); status != http.StatusOK {
			t.Errorf("a user is answered %d", status)
		}
		w.control(other, hello("02"))
		ping := wire.Ping(time.Minute)
		if err := wire.Write(attached, wire.TypePing, ping); err != nil {
			t.Error(err)
		}
		for f.Type = 0; f.Type != wire.TypePong; {
			if f, err = wire.Read(attached); err != nil {
				t.Fatalf("the attached device: %v", err)
			}
		}
		leave()
		if status := w.call(nil, http.MethodPost, api.Prefix+"/login", api.LoginRequest{}, nil); status == http.StatusTooManyRequests {
			t.Error("a place that was left is not free")
		}
	})
}
