//go:build linux

package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"hawser/internal/answer"
	"hawser/internal/wait"
)

// founderCode is another code for the founder.
func (in *infra) founderCode() string {
	in.t.Helper()
	var made struct{ Code string }
	command(in.t, &made, "hawser-server", "domain", "code", "default", "--config", in.path("server/server.yaml"), "--json")
	return made.Code
}

// login is the command line by which the founder logs in with a code, in another home.
func (in *infra) login(home, code string, more ...string) []string {
	return append([]string{"--home", in.path(home), "login", "127.0.0.1:" + in.ports[0], "--code", code, "--root", in.root}, more...)
}

// domain is what hawser domain show says in a home.
func (in *infra) domain(home string) (d struct {
	Key  string
	SPKI string `json:"spki_sha256"`
}) {
	in.t.Helper()
	command(in.t, &d, "hawser", "--home", home, "domain", "show", "--json")
	return d
}

// reaches pings the gateway from a home, until that works: the gateway may not have been told yet.
func (g *gateway) reaches(home string) {
	g.t.Helper()
	_, code, errs := outcome(g.t, "hawser", "--home", home, "ping", g.name)
	for end := time.Now().Add(patience); code != 0 && time.Now().Before(end); {
		wait.Sleep(g.t.Context(), 200*time.Millisecond)
		_, code, errs = outcome(g.t, "hawser", "--home", home, "ping", g.name)
	}
	if code != 0 {
		g.t.Fatalf("from %s: exit %d: %s", filepath.Base(home), code, errs)
	}
}

// refuses wants a command to end with 4, and returns what it said.
func (in *infra) refuses(args ...string) string {
	in.t.Helper()
	_, code, errs := outcome(in.t, "hawser", args...)
	if code != answer.ExitRefused {
		in.t.Errorf("hawser %s: exit %d: %s", strings.Join(args, " "), code, errs)
	}
	return errs
}

// resetTo has the root give the domain the key that a login has printed, and lets that login go on.
func (in *infra) resetTo(login []string) {
	in.t.Helper()
	said := in.refuses(login...)
	key := regexp.MustCompile(`domain reset default --dir DIR --key (\S+) \(fingerprint ([0-9a-f]{64})\)`).FindStringSubmatch(said)
	if key == nil {
		in.t.Fatalf("the login does not say what to do: %s", said)
	}
	var signed struct {
		SPKI string `json:"spki_sha256"`
	}
	command(in.t, &signed, "hawser-server", "domain", "reset", "default", "--dir", in.path("server"), "--key", key[1], "--json")
	if signed.SPKI != key[2] {
		in.t.Errorf("the fingerprint is %s, and %s was printed", signed.SPKI, key[2])
	}
	command(in.t, nil, "hawser", login...)
}

// The founder's disk is dead. With the copy of the domain key and another code he goes on as before.
func TestAFounderComesBackWithTheExport(t *testing.T) {
	t.Attr("id", "T-lost")
	in := newInfra(t)
	g := in.addDevice("press-4", loopbackAllowed)
	g.enroll()
	g.run()
	g.reaches(in.home)
	phrase, export := in.path("phrase"), in.path("export")
	if err := os.WriteFile(phrase, []byte("long enough, and dull\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, nil, "hawser", "--home", in.home, "domain", "export", export, "--passphrase-file", phrase)
	was := in.domain(in.home)
	if err := os.RemoveAll(in.home); err != nil {
		t.Fatal(err)
	}
	code := in.founderCode()
	command(t, nil, "hawser", "--home", in.path("new"), "domain", "import", export, "--passphrase-file", phrase)
	command(t, nil, "hawser", in.login("new", code, "--passphrase-file", phrase)...)
	if is := in.domain(in.path("new")); is != was {
		t.Errorf("the domain key is %+v, and was %+v", is, was)
	}
	g.reaches(in.path("new"))
	command(t, nil, "hawser", "--home", in.path("new"), "user", "list", "--passphrase-file", phrase)
	t.Attr("cases", "1")
}

// The domain key is lost with all copies. The root, at hand, gives the domain another one; the gateway follows by itself, and
// others when they say so.
func TestAFounderComesBackWithTheRoot(t *testing.T) {
	t.Attr("id", "T-lost")
	in := newInfra(t)
	g := in.addDevice("press-4", loopbackAllowed)
	g.enroll()
	g.run()
	g.reaches(in.home)
	was := in.domain(in.home)
	var ann struct{ Code string }
	command(t, &ann, "hawser", "--home", in.home, "user", "add", "ann", "--json")
	command(t, nil, "hawser", in.login("ann", ann.Code)...)
	command(t, nil, "hawser", "--home", in.home, "user", "list")
	g.reaches(in.path("ann"))

	login := in.login("new", in.founderCode(), "--no-passphrase")
	in.refuses(login...)
	files, err := filepath.Glob(in.path("new/*"))
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	if err != nil || !slices.Equal(files, []string{"domain.key", "lock", "login.key"}) {
		t.Errorf("domain-taken has stored %q, %v", files, err)
	}
	in.resetTo(login)
	is := in.domain(in.path("new"))
	if is == was {
		t.Fatal("it is the same key")
	}
	// Before anything is stated anew, nobody reaches the gateway; ann hears why.
	if said := in.refuses("--home", in.path("ann"), "ping", "press-4"); !strings.Contains(said, "domain accept --fingerprint "+is.SPKI) {
		t.Errorf("ann is told %s", said)
	}
	command(t, nil, "hawser", "--home", in.path("new"), "domain", "adopt", was.Key, "--yes")
	g.reaches(in.path("new"))
	var status struct {
		Owner struct {
			Key string `json:"domain_key_sha256"`
		}
	}
	command(t, &status, "hawser-agent", "--data", g.data, "status", "--json")
	if status.Owner.Key != is.SPKI {
		t.Errorf("the gateway's owner is %s", status.Owner.Key)
	}
	in.refuses("--home", in.path("ann"), "domain", "accept", "--fingerprint", was.SPKI)
	if d := in.domain(in.path("ann")); d != was {
		t.Errorf("ann took %+v without having said so", d)
	}
	command(t, nil, "hawser", "--home", in.path("ann"), "domain", "accept", "--fingerprint", is.SPKI)
	g.reaches(in.path("ann"))
	// It is not taken back by whatever the lost key says, should it be found.
	in.refuses("--home", in.home, "user", "list")
	g.agent.stop()
	g.run()
	g.reaches(in.path("new"))
	t.Attr("cases", "2")
}

// A thief has the domain key, and was faster: he has put a key of his own in its place, and the gateway believes him. The
// root's word wins.
func TestTheRootTakesADomainBackFromAThief(t *testing.T) {
	t.Attr("id", "T-lost")
	in := newInfra(t)
	plc := machine(t, func(c net.Conn) { c.Write([]byte("42")) })
	g := in.addDevice("press-4", loopbackAllowed)
	g.enroll()
	g.run()
	g.reaches(in.home)
	was := in.domain(in.home)
	thief := in.path("thief")
	if out, err := exec.Command("cp", "-a", in.home, thief).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	command(t, nil, "hawser", "--home", thief, "domain", "rotate", "--yes")
	g.reaches(thief)
	live := start(t, "hawser", "--home", thief, "connect", g.name, "-L", "0:"+plc)
	live.line("forward ")

	in.resetTo(in.login("new", in.founderCode(), "--no-passphrase"))
	command(t, nil, "hawser", "--home", in.path("new"), "domain", "adopt", was.Key, "--yes")
	g.reaches(in.path("new"))
	if err := live.wait(); err == nil {
		t.Error("the thief's session ended as if nothing was wrong")
	}
	for _, args := range [][]string{{"ping", "press-4"}, {"domain", "rotate", "--yes"}, {"user", "add", "eve"}} {
		in.refuses(append([]string{"--home", thief}, args...)...)
	}
	g.agent.stop()
	g.run()
	g.reaches(in.path("new"))
	in.server.kill() // the file that lies there, and the store, agree
	in.serve()
	g.reaches(in.path("new"))
	t.Attr("cases", "1")
}
