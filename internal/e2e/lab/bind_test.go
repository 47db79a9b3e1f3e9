//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// BIND, as it resolves names for most sites with an IT department. The site's own runs on its gateway.

// bindForwards asks the resolver that the world shares, with all that BIND adds to a question by itself: EDNS, a cookie,
// DNSSEC's bit.
func bindForwards(t *testing.T) {
	t.Helper()
	startBind(t, fmt.Sprintf("forwarders { %s; };\nforward only;", describe(t).ways("dns")[0]), "")
	nameservers(t, describe(t).Hosts["site"][2])
}

// bindViews gives the site another answer than the world: inside, the server's name is an alias of an alias, nine times,
// as a load balancer behind a CDN has it. Outside, it leads nowhere. A resolver asks by IPv4, and is inside.
func bindViews(t *testing.T) {
	t.Helper()
	host, zone, _ := strings.Cut(accessName, ".")
	const chain = 9
	access := describe(t).ways("access1")
	var inside strings.Builder
	alias := host
	for n := range chain {
		next := fmt.Sprintf("alias%d", n+1)
		fmt.Fprintf(&inside, "%s CNAME %s\n", alias, next)
		alias = next
	}
	fmt.Fprintf(&inside, "%[1]s A %[2]s\n%[1]s AAAA %[3]s\n", alias, access[0], access[1])
	dir := t.TempDir()
	view := func(name, clients, records string) string {
		file := filepath.Join(dir, name)
		text := "$TTL 60\n@ SOA ns hostmaster 1 60 60 60 60\n@ NS ns\nns A 10.20.0.1\n" + records
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("view %s { match-clients { %s }; zone %q { type primary; file %q; }; };\n", name, clients, zone, file)
	}
	startBind(t, "forwarders { "+describe(t).ways("dns")[0].String()+"; };\nforward only;",
		view("inside", "10.20.0.0/24;", inside.String())+view("outside", "any;", host+" A 10.20.0.99\n"))
	nameservers(t, describe(t).Hosts["site"][2])
}

// startBind starts named in the site's gateway, with these options and what follows them.
func startBind(t *testing.T, options, more string) {
	t.Helper()
	dir := t.TempDir()
	conf, program := filepath.Join(dir, "conf"), filepath.Join(dir, "named")
	text := fmt.Sprintf(`options {
directory %[1]q; pid-file none; session-keyfile none; managed-keys-directory %[1]q; lock-file none;
listen-on { any; }; listen-on-v6 { any; };
recursion yes; allow-query { any; }; allow-recursion { any; }; allow-query-cache { any; };
dnssec-validation no;
%[2]s
};
controls {};
%[3]s`, dir, options, more)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// AppArmor confines named by its path, to the system's files.
	binary, err := os.ReadFile(strings.TrimSpace(run(t, "sh", "-c", "command -v named")))
	if err == nil {
		err = os.WriteFile(program, binary, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	start(t, "site", program, "-g", "-n", "1", "-c", conf).await(0, "running")
}
