package manager

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hawser/identity"
	"hawser/transport/api"
)

// exportLine is one line of an export (access §7.2): exactly one member is there.
type exportLine struct {
	Export *exportBegin   `json:"export,omitempty"`
	Chain  *api.AuditHead `json:"chain,omitempty"` // its links follow
	Link   *api.AuditLink `json:"link,omitempty"`
	Device *exportDevice  `json:"device,omitempty"`
	End    *exportEnd     `json:"end,omitempty"`
}

type exportBegin struct {
	Version int    `json:"version"`
	Domain  string `json:"domain"`
}

// exportDevice is what leads from the domain key to a key that has signed reports.
type exportDevice struct {
	UID   identity.UID `json:"uid"`
	Chain []string     `json:"chain"` // identity §15.1
}

type exportEnd struct {
	Lines int `json:"lines"` // before this one
}

const (
	exportVersion = 1
	maxExportLine = 64 << 10
	// maxSignedKeys bounds the keys of devices that are remembered while a file is verified.
	maxSignedKeys = 1 << 16
	// maxProblems is how many problems of reports are said.
	maxProblems = 20
)

// Exported says what ExportAudit has written.
type Exported struct {
	File    string          `json:"file"`
	Chains  []VerifiedChain `json:"chains"`
	Records int             `json:"records"` // of this domain
	Reports int             `json:"reports"` // among them
	// Withheld is how many records are there by their hashes alone: those of other domains.
	Withheld int `json:"withheld"`
}

// ExportAudit writes the audit of all Access Servers, as far as this domain may read it, into a file of mode 0600, with all that
// it takes to verify it offline (access §7.2); what earlier domain keys have stated of gateways is among it. The file is there whole or not at all. What is wrong with a chain is its Problem;
// then the file has what is before it.
func (a *Account) ExportAudit(ctx context.Context, path string, earlier ...identity.PublicKey) (x Exported, err error) {
	const op = "export audit"
	defer a.m.progress("")
	x = Exported{File: path, Chains: []VerifiedChain{}}
	if _, err := os.Lstat(path); err == nil {
		return x, usage("%s: it is there already", path)
	}
	pool, err := a.read(ctx)
	if err != nil {
		return x, err
	}
	var heads api.AuditHeads
	if err := a.do(ctx, op, http.MethodGet, "/audit/heads", nil, &heads); err != nil {
		return x, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part") // 0600, and nobody else's
	if err != nil {
		return x, usage("write export: %w", err)
	}
	w := exportWriter{to: bufio.NewWriter(f), evidence: evidenceOf(a.state.owner.Pinned(), pool), signers: make(map[signer]bool), sum: &x}
	w.earlier = earlier
	w.line(exportLine{Export: &exportBegin{exportVersion, a.state.config.Domain}})
	for _, head := range heads.Heads {
		if head.Seq == 0 {
			continue // it has written nothing
		}
		w.line(exportLine{Chain: &head})
		v, _, chainErr := a.verifyChain(ctx, op, head, auditPlace{}, w.link)
		if err = chainErr; err != nil {
			break
		}
		x.Chains = append(x.Chains, v)
	}
	w.line(exportLine{End: &exportEnd{w.lines}})
	err = errors.Join(err, w.err, w.to.Flush(), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return x, errors.Join(err, os.Remove(f.Name()))
	}
	return x, nil
}

// signer is a key that has signed reports of a device.
type signer struct {
	uid  identity.UID
	spki identity.SPKI
}

// exportWriter keeps the first error.
type exportWriter struct {
	evidence
	to      *bufio.Writer
	err     error
	lines   int
	signers map[signer]bool
	sum     *Exported
}

func (w *exportWriter) line(l exportLine) {
	b, err := json.Marshal(l)
	if err == nil {
		_, err = w.to.Write(append(b, '\n'))
	}
	if w.err == nil {
		w.err = err
	}
	w.lines++
}

// link writes a link, and before the first report that a key has signed what the owner says of that key.
func (w *exportWriter) link(l api.AuditLink) {
	if r := l.Record; r != nil {
		w.sum.Records++
		report, err := identity.ParseReport(r.Report)
		if err == nil {
			w.sum.Reports++
			w.device(report)
		}
	}
	if l.Record == nil {
		w.sum.Withheld++
	}
	w.line(exportLine{Link: &l})
}

func (w *exportWriter) device(report identity.SignedReport) {
	key, ok := w.keyOf(report)
	who := signer{report.UID, key.SPKI()}
	if !ok || w.signers[who] {
		return
	}
	w.signers[who] = true
	if chain := w.chain(report); chain != nil {
		w.line(exportLine{Device: &exportDevice{UID: report.UID, Chain: chain}})
	}
}

// VerifiedExport is what VerifyExport found out.
type VerifiedExport struct {
	Domain  string          `json:"domain"`
	Chains  []VerifiedChain `json:"chains"`
	Records int             `json:"records"` // of the domain
	Reports int             `json:"reports"` // that their devices have signed
	// Withheld is how many records are there by their hashes alone: of other domains, or taken out of the file.
	Withheld int      `json:"withheld"`
	Problems []string `json:"problems"` // of the file and its reports, those of chains apart; never nil
}

// Err is the first thing that is wrong, or nil.
func (v VerifiedExport) Err() error {
	for _, c := range v.Chains {
		if c.Problem != "" {
			return fmt.Errorf("the audit of %s is broken: %s", clean(c.Node), clean(c.Problem))
		}
	}
	if len(v.Problems) > 0 {
		return errors.New("the export is not sound: " + clean(v.Problems[0]))
	}
	return nil
}

// VerifyExport verifies an export offline, by nothing but the root of the infrastructure and the domain with its key: that each
// record and each link of the chains is as it was written, that the servers themselves have signed where the chains begin and
// end, and that each report was signed by a key which the owner has stated for the device. Whatever is wrong is in the answer;
// the error is of reading. earlier are domain keys of before, which a person knows: what they have stated proves reports, too.
func VerifyExport(r io.Reader, roots *identity.Roots, pinned identity.Pinned, earlier ...identity.PublicKey) (VerifiedExport, error) {
	v := exportVerifier{roots: roots, pinned: pinned, earlier: earlier, keys: make(map[identity.UID][]identity.PublicKey), nodes: make(map[string]bool),
		reports: make(map[[sha256.Size]byte]bool)}
	v.found = VerifiedExport{Domain: pinned.Domain, Chains: []VerifiedChain{}, Problems: []string{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxExportLine)
	lines.Split(scanWholeLines)
	for lines.Scan() {
		if !v.take(lines.Bytes()) {
			return v.found, nil
		}
	}
	if err := lines.Err(); err != nil {
		v.problem("line %d: %v", v.lines+1, err)
		if !errors.Is(err, bufio.ErrTooLong) && !errors.Is(err, errCutLine) {
			return v.found, fmt.Errorf("read export: %w", err)
		}
	}
	if !v.ended {
		v.problem("the file was cut off after line %d", v.lines)
	}
	return v.found, nil
}

var errCutLine = errors.New("a line without its end")

// scanWholeLines splits at line ends and takes no other form of them.
func scanWholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return 0, nil, errCutLine
	}
	return 0, nil, nil
}

type exportVerifier struct {
	earlier []identity.PublicKey
	roots   *identity.Roots
	pinned  identity.Pinned
	keys    map[identity.UID][]identity.PublicKey
	known   int                // of keys
	fresh   identity.PublicKey // of the line before; zero: none
	nodes   map[string]bool
	reports map[[sha256.Size]byte]bool // that were there
	found   VerifiedExport
	lines   int
	ended   bool

	head api.AuditHead // of the chain that is being read; without a node: none is
	last auditPlace
}

func (v *exportVerifier) problem(format string, args ...any) {
	if len(v.found.Problems) < maxProblems {
		v.found.Problems = append(v.found.Problems, fmt.Sprintf(format, args...))
	}
}

// chain is the one that is being read.
func (v *exportVerifier) chain() *VerifiedChain { return &v.found.Chains[len(v.found.Chains)-1] }

func (v *exportVerifier) broken(format string, args ...any) {
	if c := v.chain(); c.Problem == "" {
		c.Problem = fmt.Sprintf(format, args...)
	}
}

// take reads one line, and reports whether the rest is worth reading. A line is in its one spelling, so that no byte of it can be
// another one.
func (v *exportVerifier) take(b []byte) bool {
	v.lines++
	var l exportLine
	err := json.Unmarshal(b, &l)
	again, err2 := json.Marshal(l)
	switch {
	case err != nil || err2 != nil || !bytes.Equal(again, b) || l.members() != 1:
		v.problem("line %d is not as it was written", v.lines)
		return false
	case !v.fresh.IsZero() && !l.signedBy(v.fresh):
		v.problem("line %d: what is stated of a device does not stand before a report of it", v.lines)
		return false
	case v.ended:
		v.problem("there is more after the end")
		return false
	case (v.lines == 1) != (l.Export != nil):
		v.problem("line %d: the file does not begin as an export does", v.lines)
		return false
	case l.Export != nil:
		if l.Export.Version != exportVersion || l.Export.Domain != v.pinned.Domain {
			v.problem("it is an export of version %d of domain %s, and not one of version %d of domain %s", l.Export.Version, l.Export.Domain, exportVersion, v.pinned.Domain)
			return false
		}
	case l.Chain != nil:
		v.endChain()
		v.beginChain(*l.Chain)
	case l.Link != nil:
		v.fresh = identity.PublicKey{}
		v.link(*l.Link)
	case l.Device != nil:
		v.device(*l.Device)
	case l.End != nil:
		v.endChain()
		if v.ended = true; l.End.Lines != v.lines-1 {
			v.problem("it has %d lines where there were %d", v.lines-1, l.End.Lines)
		}
	}
	return true
}

// signedBy tells whether it is a record whose report a key has signed.
func (l exportLine) signedBy(key identity.PublicKey) bool {
	if l.Link == nil || l.Link.Record == nil {
		return false
	}
	report, err := identity.ParseReport(l.Link.Record.Report)
	return err == nil && report.SignedBy(key)
}

func (l exportLine) members() (n int) {
	for _, is := range []bool{l.Export != nil, l.Chain != nil, l.Link != nil, l.Device != nil, l.End != nil} {
		if is {
			n++
		}
	}
	return n
}

// beginChain looks who says where a chain begins and ends.
func (v *exportVerifier) beginChain(h api.AuditHead) {
	v.head, v.last = h, auditPlace{h.BeginsSeq, h.BeginsHash}
	v.found.Chains = append(v.found.Chains, VerifiedChain{Node: h.Node, From: h.BeginsSeq + 1, To: h.Seq})
	if v.nodes[h.Node] {
		v.broken("it is there twice")
	}
	v.nodes[h.Node] = true
	if h.BeginsSeq > 0 || len(h.BeginsProof) > 0 || h.BeginsHash != "" {
		if err := proveBegin(h, v.roots); err != nil {
			v.broken("it begins after record %d, and the server's word for that is missing: %v", h.BeginsSeq, err)
		}
	}
	if len(h.Proof) == 0 {
		v.broken("nobody has signed its end: its server was not there")
	} else if err := proveHead(h.Proof, h.Node, h.Seq, h.Hash, v.roots); err != nil {
		v.broken("its end is not signed by its server: %v", err)
	}
}

// endChain looks whether the end that was signed was reached.
func (v *exportVerifier) endChain() {
	if v.head.Node == "" {
		return
	}
	if v.last != (auditPlace{v.head.Seq, v.head.Hash}) {
		v.broken("it ends with record %d, and its server has signed that it ends with record %d, or with another one", v.last.Seq, v.head.Seq)
	}
	v.head = api.AuditHead{}
}

func (v *exportVerifier) link(l api.AuditLink) {
	if v.head.Node == "" {
		v.problem("line %d: a record of no chain", v.lines)
		return
	}
	seq, hash, err := api.AuditChain{Links: []api.AuditLink{l}}.Verify(v.head.Node, v.last.Seq, v.last.Hash)
	if err != nil {
		v.broken("%v", err)
		return
	}
	v.last = auditPlace{seq, hash}
	if l.Record == nil {
		v.found.Withheld++
		return
	}
	v.found.Records++
	if l.Record.Report == "" && l.Record.Action != actionReport {
		return
	}
	if err := v.report(*l.Record); err != nil {
		v.problem("record %d of %s: %v", l.Seq, v.head.Node, err)
		return
	}
	signed := l.Record.Report[:strings.LastIndexByte(l.Record.Report, '.')] // of one text there may be several signatures
	sum := sha256.Sum256([]byte(signed))
	if v.reports[sum] { // each would count its bytes once more
		v.problem("record %d of %s: the report is there twice", l.Seq, v.head.Node)
		return
	}
	v.reports[sum] = true
	v.found.Reports++
}

// actionReport is the action of a record with a report (access §7.1).
const actionReport = "session-report"

func (v *exportVerifier) report(r api.Record) error {
	report, err := matchReport(r, v.pinned.Domain)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(v.keys[report.UID], report.SignedBy) {
		return errNotSigned
	}
	return nil
}

// device remembers a key that the owner has stated.
func (v *exportVerifier) device(d exportDevice) {
	var key identity.KeyStatement
	if len(d.Chain) > 1 {
		if s, err := identity.ParseStatement(d.Chain[1]); err == nil {
			key, _ = s.Statement.(identity.KeyStatement)
		}
	}
	peer := identity.Peer{Name: identity.DeviceName(v.pinned.Domain, d.UID), SPKI: key.Key.SPKI()}
	err := v.pinned.Leads(d.Chain, peer)
	for _, key := range v.earlier {
		if err != nil {
			err = identity.Pinned{Domain: v.pinned.Domain, Key: key}.Leads(d.Chain, peer)
		}
	}
	if err != nil {
		v.problem("line %d: what is stated of device %s does not lead to the domain key: %v", v.lines, d.UID, err)
		return
	}
	if v.known++; v.known > maxSignedKeys {
		v.problem("line %d: keys of more than %d devices", v.lines, maxSignedKeys)
		return
	}
	v.keys[d.UID] = append(v.keys[d.UID], key.Key)
	v.fresh = key.Key
}

// proveHead tells whether a node has signed that its audit had this record.
func proveHead(proof []byte, node string, seq int64, hash string, roots *identity.Roots) error {
	h, err := identity.VerifyAuditHead(proof, roots)
	if err != nil {
		return err
	}
	if h.Node != node || h.Seq != seq || hex.EncodeToString(h.Hash[:]) != hash {
		return errors.New("it is about another record")
	}
	return nil
}

// WriteExport says what an export has, or what verifying it found.
func WriteExport(w io.Writer, chains []VerifiedChain, records, reports, withheld int, problems []string) error {
	if err := WriteVerified(w, chains); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d records, %d reports of sessions; of %d records, which should be those of other domains, the content is not here\n",
		records, reports, withheld)
	if err != nil {
		return err
	}
	for _, p := range problems {
		if _, err := fmt.Fprintln(w, "NOT SOUND: "+clean(p)); err != nil {
			return err
		}
	}
	return nil
}

// Trust is what an export is verified by on this computer: the root and the domain key of the account.
func (a *Account) Trust() (*identity.Roots, identity.Pinned) {
	return a.state.roots, a.state.owner.Pinned()
}
