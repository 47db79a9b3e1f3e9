package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// Where metrics may be served without a word more, and with it.
func TestMetricsAreForThisMachineAndItsOwnNetwork(t *testing.T) {
	const rest = "hosts: [h]\nroot: r\naccess: {name: a, dir: a}\n"
	for where, public := range map[string]bool{
		"127.0.0.1:9464": false, "[::1]:9464": false, "127.9.9.9:1": false, "[::ffff:127.0.0.1]:9464": false,
		"10.1.2.3:9464": false, "172.16.0.1:9464": false, "192.168.1.1:9464": false, "[fd00::1]:9464": false,
		"0.0.0.0:9464": true, "[::]:9464": true, "192.0.2.1:9464": true, "[2001:db8::1]:9464": true, "172.32.0.1:9464": true,
		"[fe80::1]:9464": true,
	} {
		text := fmt.Sprintf("%smetrics: %q\n", rest, where)
		_, err := Parse("/x/server.yaml", []byte(text))
		if _, refused := errors.AsType[*ConfigError](err); refused != public || err != nil && !refused {
			t.Errorf("%s: %v", where, err)
		}
		c, err := Parse("/x/server.yaml", []byte(text+"metrics_public: true\n"))
		if err != nil || c.Metrics != netip.MustParseAddrPort(where) {
			t.Errorf("%s, said so: %v, %v", where, c.Metrics, err)
		}
	}
	if c, err := Parse("/x/server.yaml", []byte(rest)); err != nil || c.Metrics.IsValid() {
		t.Errorf("without the key: %v, %v", c.Metrics, err)
	}
}

// get asks the metrics' port of a whole, once.
func (w *whole) get(t *testing.T, path string) (status int, values map[string]string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: w.client.DialContext}}
	answer, err := c.Get("http://192.0.2.1:9464" + path)
	must(t, err)
	defer answer.Body.Close()
	values = map[string]string{}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		values[name] = value
	}
	must(t, lines.Err())
	return answer.StatusCode, values
}

// What comes to the ports is counted, whatever becomes of it, and the metrics are on their own port alone.
func TestMetricsCountWhatComesToThePorts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWhole(t)
		w.server.Config.Metrics = netip.MustParseAddrPort("127.0.0.1:9464")
		w.run(t, 10*time.Second, func() {
			_, before := w.get(t, "/metrics")
			must(t, w.dial(t, transport.ALPNAPI, identity.AccessName(firstAccess), 443))
			w.dial(t, "h2", identity.AccessName(firstAccess), 443)
			for _, first := range []string{"", "GET /metrics HTTP/1.1\r\n\r\n", "PROXY TCP4 192.0.2.9 192.0.2.1 1 443\r\n", "silence"} {
				conn, err := w.client.DialContext(t.Context(), "tcp", "192.0.2.1:443")
				must(t, err)
				switch first {
				case "silence":
					time.Sleep(handshakeTime + time.Second)
				case "":
				default:
					_, err = conn.Write([]byte(first))
					must(t, err)
					if answer, _ := io.ReadAll(conn); strings.Contains(string(answer), "hawser_") {
						t.Error("a public port shows metrics")
					}
				}
				must(t, conn.Close())
			}
			synctest.Wait()
			status, after := w.get(t, "/metrics")
			if status != http.StatusOK {
				t.Fatalf("status %d", status)
			}
			more := func(name string) int {
				var a, b int
				fmt.Sscan(before[name], &b)
				fmt.Sscan(after[name], &a)
				return a - b
			}
			for name, want := range map[string]int{
				"hawser_connections_total":                                 6,
				`hawser_handshakes_total{role="api"}`:                      1,
				`hawser_handshakes_total{role="access"}`:                   0,
				"hawser_handshake_duration_seconds_count":                  1,
				`hawser_handshake_failures_total{reason="wrong-protocol"}`: 1,
				`hawser_handshake_failures_total{reason="closed"}`:         1,
				`hawser_handshake_failures_total{reason="plain-http"}`:     1,
				`hawser_handshake_failures_total{reason="proxy-header"}`:   1,
				`hawser_handshake_failures_total{reason="timeout"}`:        1,
				"hawser_connections":                                       0,
			} {
				if got := more(name); got != want {
					t.Errorf("%s: %d more, want %d", name, got, want)
				}
			}
			for name, want := range map[string]string{
				`hawser_build_info{version="v1"}`: "1", "hawser_relay_registered": "1", `hawser_places{gate="hellos"}`: "0",
				`hawser_control_connections{kind="relay"}`: "1", "hawser_clock_behind_seconds": "0",
			} {
				if after[name] != want {
					t.Errorf("%s is %q, want %s", name, after[name], want)
				}
			}
			for _, certificate := range []string{"root", "issuing", "time", "grant", "access", "relay"} {
				var until float64
				fmt.Sscan(after[fmt.Sprintf("hawser_certificate_expiry_timestamp_seconds{certificate=%q}", certificate)], &until)
				if left := until - float64(time.Now().Unix()); left < 7*24*3600 || left > 100*366*24*3600 {
					t.Errorf("certificate %s is good for %v s", certificate, left)
				}
			}
			for _, path := range []string{"/", "/debug/pprof/", "/metrics/"} {
				if status, _ := w.get(t, path); status != http.StatusNotFound {
					t.Errorf("%s: status %d", path, status)
				}
			}
		})
	})
}

// Somebody who holds connections open does not shut out for long who scrapes, and a server that stops leaves none.
func TestMetricsHoldFewConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWhole(t)
		w.server.Config.Metrics = netip.MustParseAddrPort("127.0.0.1:9464")
		w.run(t, 10*time.Second, func() {
			var held []net.Conn
			for range 10 * maxScrapers {
				conn, err := w.client.DialContext(t.Context(), "tcp", "192.0.2.1:9464")
				must(t, err)
				held = append(held, conn)
			}
			synctest.Wait()
			open := 0
			for _, conn := range held {
				conn.SetReadDeadline(time.Now().Add(time.Millisecond))
				if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
					open++
				}
			}
			if open != maxScrapers {
				t.Errorf("%d connections are held, want %d", open, maxScrapers)
			}
			time.Sleep(scrapeTime)
			if status, _ := w.get(t, "/metrics"); status != http.StatusOK {
				t.Errorf("after %v: status %d", scrapeTime, status)
			}
		})
	})
}

// A metrics port that is taken is found before anything is served, and leaves nothing open.
func TestMetricsPortThatIsTakenIsFoundBeforeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWhole(t)
		w.server.Config.Metrics = netip.MustParseAddrPort("127.0.0.1:9464")
		listen := w.server.Listen
		w.server.Listen = func(network, address string) (net.Listener, error) {
			if address == "127.0.0.1:9464" {
				return nil, &net.OpError{Op: "listen", Err: syscall.EADDRINUSE}
			}
			return listen(network, address)
		}
		err := w.server.Run(t.Context())
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "open metrics") || w.ready != nil {
			t.Errorf("%v, ready %v", err, w.ready)
		}
	})
}
