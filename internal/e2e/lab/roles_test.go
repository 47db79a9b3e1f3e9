//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"hawser/probe"

	"github.com/miekg/dns"
)

// roleVariable makes this program play a role on a host, instead of testing.
const roleVariable = "HAWSER_LAB_ROLE"

// Every question to the lab's servers is answered within this time, if it is answered.
const patience = 3 * time.Second

// play is what the program does on a host: it answers on standard output, in JSON, and returns the exit code.
func play(role string, args []string) int {
	roles := map[string]func(args []string) any{
		"resolve":  each(resolve),
		"exchange": each(exchange),
		"sntp":     each(sntp),
		"converge": each(converge),
		"dial":     each(dial),
		"listen":   listen,
		"impose":   impose,
		"modbus":   modbusServer,
	}
	if err := json.NewEncoder(os.Stdout).Encode(roles[role](args)); err != nil {
		return 1
	}
	return 0
}

// answer is what came of one argument of a role.
type answer struct {
	Addrs []netip.Addr  // of a name
	Error string        // a reason of probe, or a word of ours; empty is success
	Took  time.Duration // until then

	Stratum uint8 // of a time server, with how far it is ahead of us
	Offset  time.Duration
	Rounds  int // until it could be believed
}

// each does one thing with all arguments at once, and gives the answers in their order.
func each(one func(ctx context.Context, arg string) answer) func(args []string) any {
	return func(args []string) any {
		answers := make([]answer, len(args))
		var wg sync.WaitGroup
		for i, arg := range args {
			wg.Go(func() {
				began := time.Now()
				answers[i] = one(context.Background(), arg)
				answers[i].Took = time.Since(began)
			})
		}
		wg.Wait()
		return answers
	}
}

// resolve looks up a name as a client does that has just been started, with what the system says of resolvers.
func resolve(ctx context.Context, name string) (a answer) {
	var err error
	a.Addrs, err = new(probe.Resolver).Resolve(ctx, name)
	if failed, ok := errors.AsType[*probe.NameError](err); ok {
		a.Error = string(failed.Reason)
	} else if err != nil {
		a.Error = err.Error()
	}
	return a
}

// exchange asks the lab's resolver one question, over "udp" or "tcp" alone.
func exchange(ctx context.Context, network string) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return answer{Error: err.Error()}
	}
	question := new(dns.Msg).SetQuestion("ccas1.keb.de.", dns.TypeA)
	client := dns.Client{Net: network, Timeout: patience}
	reply, _, err := client.ExchangeContext(ctx, question, net.JoinHostPort(conf.Servers[0], "53"))
	if err == nil && len(reply.Answer) != 1 {
		err = fmt.Errorf("%d records", len(reply.Answer))
	}
	a.Error = wordFor(err)
	return a
}

// sntp asks a time server.
func sntp(ctx context.Context, source string) answer {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	now := time.Now()
	sample := new(probe.SNTP).Query(ctx, source)
	err := sample.Check(now.Add(-2*time.Hour), now.Add(2*time.Hour))
	if failed, ok := errors.AsType[*probe.TimeError](err); ok {
		return answer{Error: string(failed.Reason)}
	}
	return answer{Stratum: sample.Stratum, Offset: sample.Offset()}
}

// converge asks a time server until it can be believed, as an agent does with one source, without its pauses.
func converge(ctx context.Context, source string) (a answer) {
	names := new(probe.Resolver)
	clock := &probe.SNTP{Resolve: names.Resolve}
	for a.Rounds < maxRounds {
		a.Rounds++
		now := time.Now()
		v := probe.Combine(clock.Round(ctx, []string{source}), 1, now.Add(-time.Hour), now.Add(time.Hour))
		if v.Plausible {
			return answer{Rounds: a.Rounds, Offset: v.Time.Sub(v.Received)}
		}
		a.Error = string(v.Reason)
	}
	return a
}

// dial connects to ADDRESS:PORT and goes away.
func dial(ctx context.Context, address string) answer {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err == nil {
		err = conn.Close()
	}
	return answer{Error: wordFor(err)}
}

// wordFor is "", "refused", "timeout", or what err says.
func wordFor(err error) string {
	failed, isNet := errors.AsType[net.Error](err)
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case isNet && failed.Timeout():
		return "timeout"
	}
	return err.Error()
}

// listen accepts connections to the given ports until its standard input ends.
func listen(ports []string) any {
	for _, port := range ports {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return answer{Error: err.Error()}
		}
		defer l.Close() // the kernel accepts for us: that suffices for who only dials
	}
	fmt.Println("listening")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return answer{}
}

// onHost is this program in a role on a host.
func onHost(t *testing.T, host, role string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("lab", append([]string{"exec", host, self}, args...)...)
	// The race detector waits for a second before a program ends, for threads that may still race; ours have ended.
	cmd.Env = append(os.Environ(), roleVariable+"="+role, "GORACE=atexit_sleep_ms=50 "+os.Getenv("GORACE"))
	cmd.Stderr = os.Stderr
	return cmd
}

// ask plays a role on a host and returns the answer to each argument.
func ask(t *testing.T, host, role string, args ...string) []answer {
	t.Helper()
	out, err := onHost(t, host, role, args...).Output()
	if err != nil {
		t.Fatalf("%s on %s: %v", role, host, err)
	}
	var answers []answer
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(args) {
		t.Fatalf("%s on %s answers %q: %v", role, host, out, err)
	}
	return answers
}

// listenOn has TCP ports accepted on a host until the test ends.
func listenOn(t *testing.T, host string, ports ...string) {
	t.Helper()
	cmd := onHost(t, host, "listen", ports...)
	stdin := startSaying(t, cmd, "listening\n")
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("listen on %s: %v", host, err)
		}
	})
}
