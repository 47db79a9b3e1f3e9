//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hawser/identity"
	"hawser/transport"
	"hawser/transport/accesstest"
	"hawser/transport/api"
	"hawser/transport/api/apitest"
	"hawser/transport/wire"
)

// settle is how long idle processes are left alone before their memory is read: by then Go has given back what it does
// not need.
const settle = 25 * time.Second

// fleet is a crowd of devices: real keys, real certificates, real TLS, in this process.
type fleet struct {
	*infra
	domain  *apitest.Domain
	admin   *accesstest.Client
	devices []*accesstest.Client
	links   []*tls.Conn
	mu      sync.Mutex // guards devices and links
}

// workers is how many devices do something at once: more than the processors, fewer than a server limits.
const workers = 8

// measureIdle reads the memory of a server to which devices are attached that do nothing.
func measureIdle(ctx context.Context, b *bench) error {
	if err := moreFiles(); err != nil {
		return err
	}
	for _, n := range b.devices {
		if err := b.idleDevices(ctx, n); err != nil {
			return fmt.Errorf("%d devices: %w", n, err)
		}
	}
	return nil
}

// moreFiles lets this process, and those that it starts, open as many files as the system lets it.
func moreFiles() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

func (b *bench) idleDevices(ctx context.Context, n int) error {
	s, err := b.newStage("idle", "", nil)
	if err != nil {
		return err
	}
	defer s.stop()
	in, err := s.newInfra(ctx)
	if err != nil {
		return err
	}
	f := &fleet{infra: in}
	if err := f.signIn(ctx); err != nil {
		return err
	}
	begin := time.Now()
	if err := f.each(n, func(i int) error { return f.enroll(ctx, fmt.Sprintf("device %d", i)) }); err != nil {
		return fmt.Errorf("enroll: %w", err)
	}
	b.result.add("hawser", fmt.Sprintf("%d devices enrolled per s", n), 1, float64(n)/time.Since(begin).Seconds())
	// What enrolling has left in the server's memory is not the price of an idle device.
	in.server.stop()
	if err := in.serve(ctx); err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	empty, _ := resident(in.server)
	before := usageOf(tree(in.server))
	begin = time.Now()
	if err := f.each(n, func(i int) error { return f.attach(ctx, f.devices[i]) }); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	took := time.Since(begin).Seconds()
	cpu := usageOf(tree(in.server)).minus(before).cpu
	defer func() {
		for _, l := range f.links {
			l.NetConn().Close()
		}
	}()
	time.Sleep(settle)
	if err := f.alive(); err != nil {
		return err
	}
	full, _ := resident(in.server)
	b.result.add("hawser", fmt.Sprintf("%d idle devices, KiB each", n), 1, float64(full-empty)/1024/float64(n))
	b.result.add("hawser", fmt.Sprintf("%d devices attached per s", n), 1, float64(n)/took)
	b.result.add("hawser", fmt.Sprintf("%d devices attached, CPU ms each", n), 1, millis(cpu)/float64(n))
	b.say("idle: %d devices", n)
	return nil
}

// each does something for n devices, some at once. The first error ends it.
func (f *fleet) each(n int, do func(int) error) error {
	next := make(chan int)
	var doing sync.WaitGroup
	var once sync.Once
	var first error
	stop := make(chan struct{})
	for range workers {
		doing.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					once.Do(func() { first = err; close(stop) })
					return
				}
			}
		})
	}
	for i := range n {
		select {
		case next <- i:
			continue
		case <-stop:
		}
		break
	}
	close(next)
	doing.Wait()
	return first
}

// dial connects from an address that depends on the number of connections: one has too few ports for a large fleet.
func (f *fleet) dial(ctx context.Context, c *accesstest.Client, alpn string) (*tls.Conn, error) {
	f.mu.Lock()
	from := net.IPv4(127, 0, 1, byte(1+len(f.links)%100))
	f.mu.Unlock()
	d := &tls.Dialer{Config: c.TLS(alpn), NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", f.ports[0]))
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn), nil
}

// ask makes a request of the API and decodes the answer.
func (f *fleet) ask(ctx context.Context, c *accesstest.Client, path string, body, answer any) error {
	conn, err := f.dial(ctx, c, transport.ALPNAPI)
	if err != nil {
		return err
	}
	return apitest.Post(conn, path, body, answer)
}

// signIn makes this process the technician.
func (f *fleet) signIn(ctx context.Context) error {
	b, err := os.ReadFile(f.root)
	if err != nil {
		return err
	}
	roots, err := identity.ParseRoots(b)
	if err != nil {
		return err
	}
	f.domain = apitest.NewDomain("default", identity.CertSPKI(roots.Certificates()[0]))
	f.admin = f.domain.Admin
	var answer api.LoginAnswer
	if err := f.ask(ctx, nil, "/login", f.domain.Login(f.code, "admin"), &answer); err != nil {
		return err
	}
	return f.admin.Take(answer.Chain)
}

// prelude connects to the Access Server and says what for.
func (f *fleet) prelude(ctx context.Context, c *accesstest.Client, purpose wire.Type, body any) (*tls.Conn, error) {
	conn, err := f.dial(ctx, c, transport.ALPNAccess)
	if err != nil {
		return nil, err
	}
	err = accesstest.Prelude(conn)
	if err == nil {
		err = wire.WriteJSON(conn, purpose, body)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (f *fleet) enroll(ctx context.Context, name string) error {
	added := f.domain.Device(name)
	if err := f.ask(ctx, f.admin, "/devices", added.Request, nil); err != nil {
		return err
	}
	c := accesstest.NewClient()
	conn, err := f.prelude(ctx, nil, wire.TypeEnroll, added.Enroll(c))
	if err != nil {
		return err
	}
	defer conn.Close()
	frame, err := wire.Expect(conn, wire.TypeIdentity)
	if err != nil {
		return err
	}
	var id wire.Identity
	if err := errors.Join(frame.Decode(&id), added.Take(c, id)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.devices = append(f.devices, c)
	return nil
}

// attach makes the control connection of a device, as an agent has it.
func (f *fleet) attach(ctx context.Context, c *accesstest.Client) error {
	conn, err := f.prelude(ctx, c, wire.TypeHello, wire.Hello{Version: "bench", Instance: "01", Key: c.Stated})
	if err != nil {
		return err
	}
	if _, err := wire.Expect(conn, wire.TypeWelcome); err != nil {
		conn.Close()
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links = append(f.links, conn)
	return nil
}

// alive asks some of the devices for a pong, so that no closed connection is counted as an idle one.
func (f *fleet) alive() error {
	for i := 0; i < len(f.links); i += max(1, len(f.links)/100) {
		conn := f.links[i]
		conn.SetDeadline(time.Now().Add(patience))
		if err := wire.Write(conn, wire.TypePing, wire.Ping(20*time.Minute)); err != nil {
			return err
		}
		for {
			frame, err := wire.Read(conn)
			if err != nil {
				return fmt.Errorf("idle device %d: %w", i, err)
			}
			if frame.Type == wire.TypePong {
				break
			}
		}
	}
	return nil
}
