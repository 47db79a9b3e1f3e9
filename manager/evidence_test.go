package manager

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/internal/answer"
	"hawser/transport/api"
)

// book is the audit of a server of which a test writes each record.
type book struct {
	f *fake

	mu    sync.Mutex // guards links
	links []api.AuditLink
}

func (b *book) written() []api.AuditLink {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.links)
}

// add writes a record; a nil one is another domain's.
func (b *book) add(r *api.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := api.AuditLink{}
	if n := len(b.links); n > 0 {
		last = b.links[n-1]
	}
	own := api.Record{Domain: "default", Action: "login", Result: "ok"}
	if r != nil {
		own = *r
	}
	own.Node, own.Seq, own.Prev, own.Time = "a1", last.Seq+1, last.Hash, time.Now().UTC().Truncate(time.Millisecond)
	own.Hash = ""
	own.Hash = must(own.Sum())
	l := api.AuditLink{Seq: own.Seq, Prev: own.Prev, Hash: own.Hash, Record: &own}
	if r == nil {
		l.Record = nil
	}
	b.links = append(b.links, l)
}

// report writes the record of a report that key has signed.
func (b *book) report(key crypto.Signer, part uint64) {
	said := identity.Report{Domain: "default", UID: b.f.uid, Session: strings.Repeat("a", 32), Epoch: 1, User: "admin", Peer: identity.SPKI{1}, Part: part,
		Begin: 1772366400, At: 1772366460, End: 1772366460, Reason: "closed", Streams: []identity.Reached{
			{Target: "192.168.1.5:502", Begin: 1772366401, End: 1772366459, Carried: identity.Carried{In: 12, Out: 34, Count: 2}, Reason: "closed"}},
		More: identity.Carried{In: 1, Out: 2, Count: 3}, Refused: 4, Lost: 5}
	b.add(&api.Record{Domain: "default", Actor: "hawser://default/user/admin", Action: "session-report",
		Object: identity.DeviceName("default", b.f.uid).String(), Result: "ok", Detail: "whatever the server says", Report: must(said.Sign(key)).JWS})
}

// head is signed by the server's own key.
func (b *book) head() api.AuditHead {
	links := b.written()
	last := links[len(links)-1]
	h := identity.AuditHead{Seq: last.Seq, Hash: [32]byte(must(hex.DecodeString(last.Hash))), Time: time.Now()}
	return api.AuditHead{Node: "a1", Seq: last.Seq, Hash: last.Hash, Proof: must(h.Sign(b.f.pki.Grant.Key, b.f.pki.Grant.Cert))}
}

func (b *book) serve() {
	s := auditServer{}
	s.serve(b.f)
	b.f.answer("GET /audit/heads", func(w http.ResponseWriter, r *http.Request) {
		jsonAnswer(api.AuditHeads{Heads: []api.AuditHead{b.head()}})(w, r)
	})
	b.f.answer("GET /audit/chain", func(w http.ResponseWriter, r *http.Request) {
		s.links = b.written()
		s.piece(w, r)
	})
	b.f.answer("GET /statements", jsonAnswer(api.Statements{Statements: b.f.chain}))
	b.f.answer("GET /audit", func(w http.ResponseWriter, r *http.Request) {
		since, _ := time.Parse(time.RFC3339, r.URL.Query().Get(api.ParamSince))
		page := api.Records{Statements: b.f.chain}
		for _, l := range b.written() {
			if l.Record != nil && !l.Record.Time.Before(since) {
				page.Records = append(page.Records, *l.Record)
			}
		}
		jsonAnswer(page)(w, r)
	})
}

func (f *fake) gatewayKey() crypto.Signer { return f.gatewayTLS.PrivateKey.(crypto.Signer) }

// What a gateway has signed is shown, with its name by the owner's word; what a server made up is marked.
func TestAuditShowsWhatTheGatewayHasSigned(t *testing.T) {
	t.Attr("id", "T-evidence")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		b := &book{f: f}
		b.serve()
		b.report(f.gatewayKey(), 1)
		b.report(identitytest.NewKey(), 2) // by a server with every key but this one
		r := *b.links[0].Record
		r.Actor = "hawser://default/user/bob"
		b.add(&r)
		list, err := a.Audit(t.Context(), AuditQuery{Limit: 10})
		if err != nil || len(list) != 3 {
			t.Fatalf("%+v, %v", list, err)
		}
		for i, want := range []string{"", "not signed by a key that the owner has stated", "about another device, user or domain"} {
			if got := list[i]; got.Name != "press" || (got.Unproven == "") != (want == "") || !strings.Contains(got.Unproven, want) || got.Reported == nil {
				t.Errorf("%d: %+v", i, got)
			}
		}
		var out bytes.Buffer
		if err := WriteRecords(&out, list); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(out.String(), "\n")
		want := "  press  ok      session " + strings.Repeat("a", 32) + ", part 1 of epoch 1, since 2026-03-01T12:00:00Z, ended 2026-03-01T12:01:00Z: closed; " +
			"192.168.1.5:502 (2 times) from 2026-03-01T12:00:01Z to 2026-03-01T12:00:59Z, 12 bytes in, 34 out, closed; " +
			"3 more streams than it lists, with 1 bytes in, 2 out; 4 streams refused; 5 earlier reports of this gateway are lost"
		if !strings.HasSuffix(lines[1], want) || !strings.Contains(lines[2], "NOT PROVEN (") || strings.Contains(out.String(), "whatever the server says") {
			t.Errorf("got\n%s\nwant a line that ends in\n%s", out.String(), want)
		}
		f.chain = f.owner.DeviceChain(f.uid, "press", identitytest.NewKey().Public())
		b.serve()
		if list, err = a.Audit(t.Context(), AuditQuery{Limit: 10}); err != nil || list[0].Unproven == "" {
			t.Errorf("another key is stated: %+v, %v", list, err)
		}
	})
}

func TestSinceIsATimeADateOrHowLongAgo(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]string{"24h": "2026-03-01T12:00:00Z", "90m": "2026-03-02T10:30:00Z", "2026-03-01": "2026-03-01T00:00:00Z",
		"2026-03-01T08:00:00+02:00": "2026-03-01T06:00:00Z", "": "", "0s": "", "-1h": "", "yesterday": "", "2026-13-01": "", "24": ""} {
		got, err := ParseSince(s, now)
		if want == "" {
			if ExitCode(err) != answer.ExitUsage {
				t.Errorf("%q: %v", s, err)
			}
		} else if err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

// New records come once each, over one connection, and go on after that was lost.
func TestFollowingGoesOnAfterALostConnection(t *testing.T) {
	t.Attr("id", "T-evidence")
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		b := &book{f: f}
		b.serve()
		for range 3 {
			b.add(&api.Record{Domain: "default"})
		}
		var got []int64
		said := 0
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- a.FollowAudit(ctx, AuditQuery{Limit: 10}, func(list []AuditRecord) error {
				for _, r := range list {
					got = append(got, r.Seq)
				}
				return nil
			}, func(error) { said++ })
		}()
		want := func(n int64, within time.Duration) {
			t.Helper()
			time.Sleep(within)
			synctest.Wait()
			for i := range got {
				if got[i] != int64(i+1) {
					t.Fatalf("got %v", got)
				}
			}
			if int64(len(got)) != n {
				t.Fatalf("got %v, want %d", got, n)
			}
		}
		want(3, time.Second)
		b.add(&api.Record{Domain: "default"})
		want(4, followEvery)
		time.Sleep(5 * time.Minute) // what was shown is not shown again
		b.add(&api.Record{Domain: "default"})
		want(5, followEvery)
		f.net.Cut(clientAddr, accessAddr)
		b.add(&api.Record{Domain: "default"})
		want(5, 30*time.Second)
		f.net.Heal(clientAddr, accessAddr)
		want(6, 3*time.Minute)
		if said != 2 {
			t.Errorf("said %d times that it is lost, or back", said)
		}
		f.answer("GET /audit", problemAnswer(403, "policy", "no more"))
		if err := <-done; ExitCode(err) != answer.ExitRefused {
			t.Errorf("refused: %v", err)
		}
		cancel()
		go func() { done <- a.FollowAudit(ctx, AuditQuery{Limit: 10}, nil, nil) }()
		if err := <-done; err != nil {
			t.Errorf("interrupted: %v", err)
		}
	})
}

// exported is an export with two reports, and what it is verified by.
func exported(t *testing.T, fill func(*fake, *book)) (file []byte, x Exported, roots *identity.Roots, pinned identity.Pinned) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		a := f.loggedIn(f.manager())
		b := &book{f: f}
		b.serve()
		b.add(&api.Record{Domain: "default"})
		b.add(nil)
		fill(f, b)
		b.add(nil)
		b.add(&api.Record{Domain: "default"})
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		var err error
		if x, err = a.ExportAudit(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		file = must(os.ReadFile(path))
		if _, err := a.ExportAudit(t.Context(), path); ExitCode(err) != answer.ExitUsage {
			t.Errorf("again: %v", err)
		}
		if list := must(filepath.Glob(path + "*")); len(list) != 1 {
			t.Errorf("left behind: %v", list)
		}
		roots, pinned = a.Trust()
	})
	return file, x, roots, pinned
}

func signedTwice(f *fake, b *book) {
	b.report(f.gatewayKey(), 1)
	b.report(f.gatewayKey(), 2)
}

// An export is verified by root and domain key alone, and every byte of it counts.
func TestAnyByteFlippedInAnExportIsNoticed(t *testing.T) {
	t.Attr("id", "T-evidence")
	file, x, roots, pinned := exported(t, signedTwice)
	v, err := VerifyExport(bytes.NewReader(file), roots, pinned)
	if err != nil || v.Err() != nil || v.Records != 4 || v.Reports != 2 || v.Withheld != 2 || x.Records != 4 || x.Reports != 2 || x.Withheld != 2 || len(v.Chains) != 1 || v.Chains[0].To != 6 {
		t.Fatalf("%+v, %v, exported %+v\n%s", v, err, x, file)
	}
	check := func(what string, file []byte) {
		t.Helper()
		if v, err := VerifyExport(bytes.NewReader(file), roots, pinned); err == nil && v.Err() == nil {
			t.Errorf("%s is not noticed", what)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	step := 2
	for i := random.IntN(step); i < len(file); i += step {
		flipped := bytes.Clone(file)
		flipped[i] ^= 1 << random.IntN(8)
		check("a bit flipped at "+string(file[max(0, i-20):i]), flipped)
	}
	lines := bytes.SplitAfter(file, []byte("\n"))
	lines = lines[:len(lines)-1]
	for i := range lines {
		rest := append(append([][]byte{}, lines[:i]...), lines[i+1:]...)
		check("a line left out", bytes.Join(rest, nil))
		check("the file cut", bytes.Join(lines[:i], nil))
		twice := append(append([][]byte{}, lines[:i+1]...), lines[i:]...)
		check("a line twice", bytes.Join(twice, nil))
		if i > 0 {
			swapped := append([][]byte{}, lines...)
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
			check("two lines swapped", bytes.Join(swapped, nil))
		}
	}
	for i := range lines { // a record without its content is not hidden: the verdict counts them
		var l exportLine
		if err := json.Unmarshal(lines[i], &l); err != nil || l.Link == nil || l.Link.Record == nil || l.Link.Record.Report != "" {
			continue
		}
		l.Link.Record = nil
		blank := append([][]byte{}, lines...)
		blank[i] = append(must(json.Marshal(l)), '\n')
		if v, err := VerifyExport(bytes.NewReader(bytes.Join(blank, nil)), roots, pinned); err != nil || v.Records != 3 || v.Withheld != 3 {
			t.Errorf("a record is taken out: %+v, %v", v, err)
		}
	}
	check("more behind it", append(bytes.Clone(file), "{}\n"...))
	check("nothing", nil)
	check("other line ends", bytes.ReplaceAll(file, []byte("\n"), []byte("\r\n")))
	other := pinned
	other.Key = identitytest.NewOwner("default").Key
	if v, _ := VerifyExport(bytes.NewReader(file), roots, other); v.Reports != 0 || v.Err() == nil {
		t.Error("another domain key takes the reports")
	}
	if v, err := VerifyExport(bytes.NewReader(file), roots, other, pinned.Key); err != nil || v.Reports != 2 || v.Err() != nil {
		t.Errorf("the key of before, which a person names, takes %+v, %v", v, err)
	}
	if v, _ := VerifyExport(bytes.NewReader(file), identitytest.New(time.Now()).Roots, pinned); v.Err() == nil {
		t.Error("another root takes the chain")
	}
}

// Whoever has every key of the infrastructure writes a chain that fits and signs its end, and still no report.
func TestAServerWithEveryKeyMakesNoReport(t *testing.T) {
	t.Attr("id", "T-evidence")
	for what, c := range map[string]struct {
		fill func(*fake, *book)
		want string
	}{
		"made up":                 {func(_ *fake, b *book) { b.report(identitytest.NewKey(), 1) }, "not signed by a key that the owner has stated"},
		"by the server's own key": {func(f *fake, b *book) { b.report(f.pki.Grant.Key, 1) }, "not signed by a key that the owner has stated"},
		"for another user": {func(f *fake, b *book) {
			signedTwice(f, b)
			b.links[3].Record.Actor = "hawser://default/user/bob"
			b.seal(3)
		}, "about another device, user or domain"},
		"without its report": {func(f *fake, b *book) {
			signedTwice(f, b)
			b.links[3].Record.Report = ""
			b.seal(3)
		}, "cannot be read"},
		"twice": {func(f *fake, b *book) {
			signedTwice(f, b)
			b.add(&api.Record{Domain: "default"})
			again := *b.links[3].Record
			again.Seq = b.links[4].Record.Seq
			b.links[4].Record = &again
			b.seal(4)
		}, "is there twice"},
		"with another's": {func(f *fake, b *book) {
			signedTwice(f, b)
			jws := b.links[3].Record.Report
			b.links[3].Record.Report = strings.Replace(jws, "eyJk", "eyJl", 1)
			b.seal(3)
		}, "cannot be read"},
	} {
		file, _, roots, pinned := exported(t, c.fill)
		v, err := VerifyExport(bytes.NewReader(file), roots, pinned)
		if err != nil || v.Chains[0].Problem != "" || len(v.Problems) != 1 || !strings.Contains(v.Problems[0], c.want) {
			t.Errorf("%s: %+v, %v", what, v, err)
		}
	}
}

// seal makes the chain fit again from a record on, as whoever has the server can.
func (b *book) seal(from int) {
	for i := from; i < len(b.links); i++ {
		l := &b.links[i]
		if i > 0 {
			l.Prev = b.links[i-1].Hash
		}
		l.Record.Prev = l.Prev
		l.Record.Hash = ""
		l.Record.Hash = must(l.Record.Sum())
		l.Hash = l.Record.Hash
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("disk") }

func TestAnExportThatCannotBeReadIsAnError(t *testing.T) {
	if _, err := VerifyExport(failingReader{}, nil, identity.Pinned{}); err == nil {
		t.Error("it can be read")
	}
}

// Whatever a file holds, it ends in a verdict.
func FuzzVerifyExport(f *testing.F) {
	roots, pinned := identitytest.New(time.Now()).Roots, identity.Pinned{Domain: "default"}
	for _, l := range []exportLine{{Export: &exportBegin{1, "default"}}, {Chain: &api.AuditHead{Node: "a1"}}, {Link: &api.AuditLink{Seq: 1, Record: new(api.Record)}},
		{Device: &exportDevice{Chain: []string{"a.b.c", "a.b.c"}}}, {End: new(exportEnd)}} {
		b, _ := json.Marshal(l)
		f.Add([]byte(`{"export":{"version":1,"domain":"default"}}` + "\n" + string(b) + "\n"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := VerifyExport(bytes.NewReader(b), roots, pinned)
		if err != nil || v.Err() == nil && v.Records > 0 { // nobody has signed its end
			t.Errorf("%+v, %v", v, err)
		}
	})
}
