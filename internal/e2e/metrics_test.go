//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"hawser/agent"
	"hawser/identity"
	"hawser/internal/e2e/pace"
	"hawser/transport"
)

// scrape reads the metrics of the server, as Prometheus does.
func (in *infra) scrape(addr string) map[string]float64 {
	in.t.Helper()
	answer, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		in.t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		in.t.Fatalf("metrics: %s", answer.Status)
	}
	values := map[string]float64{}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		at := strings.LastIndex(lines.Text(), " ") // labels may hold spaces
		name := lines.Text()[:max(at, 0)]
		value, err := strconv.ParseFloat(lines.Text()[at+1:], 64)
		if _, twice := values[name]; err != nil || name == "" || twice {
			in.t.Errorf("metrics: %q", lines.Text())
		}
		values[name] = value
	}
	return values
}

// sessionOver is what the log of a relay says of a session.
var sessionOver = regexp.MustCompile(`msg="session over".* from_runtime=([0-9]+) from_manager=([0-9]+)`)

// What an operator sees in Grafana is what happened: a technician's session from the first code to its end, and one try
// with a wrong code.
func TestMetricsTellWhatASessionDid(t *testing.T) {
	t.Attr("id", "O-metrics")
	in := newInfra(t)
	in.server.stop()
	addr := "127.0.0.1:" + freePorts(t, 1)[0]
	config, err := os.OpenFile(in.path("server/server.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(config, "metrics: %s\n", addr)
	}
	if err != nil || config.Close() != nil {
		t.Fatal(err)
	}
	in.serve()
	before := in.scrape(addr)

	const size = 1 << 20
	file := machine(t, func(c net.Conn) { io.Copy(c, noise(1, size)) })
	g := in.addDevice("press-4", loopbackAllowed)
	wrong := identity.NewOwnerCode().String()
	if _, code, _ := outcome(t, "hawser-agent", "--data", g.data, "enroll", "--code", wrong); code != 4 {
		t.Errorf("a wrong code: exit %d", code)
	}
	g.enroll()
	g.run()
	session, forward := g.connect(file)
	tool := dial(t, new(pace.Progress), forward)
	if _, n := sum(t, tool); n != size {
		t.Errorf("%d of %d bytes arrived", n, size)
	}
	during := in.scrape(addr)
	tool.Close()
	session.stop()
	after := in.scrape(addr)
	for wait := pace.Patience; !sessionOver.MatchString(in.server.log.String()) || after["hawser_sessions_open"] > 0; wait -= time.Second / 10 {
		if wait < 0 {
			t.Fatalf("the session does not end: %v", after)
		}
		<-time.After(time.Second / 10)
		after = in.scrape(addr)
	}

	for name, want := range map[string]float64{
		"hawser_sessions_open": 1, "hawser_relay_sessions": 1, `hawser_control_connections{kind="device"}`: 1,
		`hawser_control_connections{kind="relay"}`: 1, "hawser_relay_registered": 1, "hawser_store_granting": 1,
	} {
		if during[name] != want {
			t.Errorf("during the session: %s is %v, want %v", name, during[name], want)
		}
	}
	g.wantCounts(size)
	carried := sessionOver.FindStringSubmatch(in.server.log.String())
	for name, want := range map[string]float64{
		"hawser_sessions_opened_total": 1, "hawser_sessions_moved_total": 0, "hawser_sessions_open": 0,
		`hawser_session_ends_total{reason="closed"}`: 1, "hawser_relay_pairs_total": 1, "hawser_relay_sessions": 0,
		`hawser_relay_bytes_total{from="runtime"}`:        number(t, carried[1]),
		`hawser_relay_bytes_total{from="manager"}`:        number(t, carried[2]),
		`hawser_certificates_total{purpose="enroll"}`:     1, // of the gateway; the relay has enrolled before
		`hawser_access_refusals_total{reason="bad-code"}`: 1,
		`hawser_control_connections_total{kind="device"}`: 1,
		"hawser_panics_total":                             0,
		"hawser_store_damages":                            0,
		`hawser_store_failures_total{kind="away"}`:        0,
	} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s: %v more, want %v", name, got, want)
		}
	}
	for name, least := range map[string]float64{
		`hawser_relay_bytes_total{from="runtime"}`: size,
		`hawser_handshakes_total{role="access"}`:   3, // a wrong code, a right one, the control connection
		`hawser_handshakes_total{role="api"}`:      2, `hawser_handshakes_total{role="relay"}`: 2,
		"hawser_connections_total": 7, "hawser_api_request_duration_seconds_count": 2,
		"hawser_store_commit_duration_seconds_count": 4, "hawser_store_read_duration_seconds_count": 4,
	} {
		if got := after[name] - before[name]; got < least {
			t.Errorf("%s: %v more, want at least %v", name, got, least)
		}
	}
	if open, most := after["process_open_fds"], after["process_max_fds"]; open < 5 || open > most {
		t.Errorf("%v of %v descriptors are open", open, most)
	}
	in.wantMetricsTellNobody(addr, g)
}

// wantCounts compares what the gateway itself says of one session, in which a machine sent out bytes.
func (g *gateway) wantCounts(out int64) {
	g.t.Helper()
	var st struct{ Counts agent.Counts }
	command(g.t, &st, "hawser-agent", "--data", g.data, "status", "--json")
	c := st.Counts
	if c.Online != 1 || c.Reconnects != 0 || c.Sessions != 1 || c.SessionEnds[transport.Closed] != 1 || c.Streams != 1 ||
		c.StreamsRefused.Sum() != 0 || c.OutBytes != out || c.InBytes != 0 || c.Handshakes < 2 || c.Connections < c.Handshakes {
		g.t.Errorf("the gateway counted %+v", c)
	}
}

// wantMetricsTellNobody checks that they are on their own address alone, and name nobody.
func (in *infra) wantMetricsTellNobody(addr string, g *gateway) {
	in.t.Helper()
	answer, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		in.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		in.t.Fatal(err)
	}
	for _, secret := range []string{g.uid, g.name, g.code, "admin", "127.0.0", in.dir} {
		if strings.Contains(string(text), secret) {
			in.t.Errorf("the metrics tell %q", secret)
		}
	}
	for _, port := range in.ports {
		if answer, err := http.Get("http://127.0.0.1:" + port + "/metrics"); err == nil {
			body, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if strings.Contains(string(body), "hawser_") {
				in.t.Errorf("port %s shows them", port)
			}
		}
	}
	host, port, _ := net.SplitHostPort(addr)
	want := fmt.Sprintf("tcp %02X00007F:%04X", 1, int(number(in.t, port)))
	for _, open := range listening(in.t, in.server.cmd.Process.Pid) {
		if strings.HasSuffix(open, want[len(want)-5:]) && open != want {
			in.t.Errorf("they listen at %s, want %s alone", open, host)
		}
	}
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
