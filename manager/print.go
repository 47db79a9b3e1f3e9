package manager

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"hawser/identity"
	"hawser/internal/answer"
	"hawser/transport/api"
)

// WriteInfo says who is logged in.
func WriteInfo(w io.Writer, i Info) error {
	return writeFields(w, [][2]string{
		{"user", i.User}, {"domain", i.Domain}, {"key", i.SPKI.String()}, {"to compare", compared(i.SPKI)},
		{"valid until", stamp(i.NotAfter)}, {"home", i.Home},
	})
}

// WriteLoggedOut says what is left to be done after a logout.
func WriteLoggedOut(w io.Writer, o LoggedOut) error {
	text := "%s of %s has logged out here; its key and certificate are gone\n" +
		"the owner's statement about the key stays: if somebody may have a copy of it, an admin gives\n" +
		"  hawser user revoke %[1]s --key %[3]s\n"
	if o.DomainKey {
		text += "the domain key is still here: move domain.key away if this computer is given away\n"
	}
	_, err := fmt.Fprintf(w, text, o.User, o.Domain, o.SPKI)
	return err
}

// WriteListed says which keys of a user are out.
func WriteListed(w io.Writer, user string, keys []identity.SPKI) error {
	for i, k := range keys {
		text := "the key %[2]s, which it has let in, is shut out\n"
		if i == 0 {
			text = "the key %[2]s of %[1]s is shut out\n"
		}
		if _, err := fmt.Fprintf(w, text, clean(user), k); err != nil {
			return err
		}
	}
	return nil
}

// AboutInvited is the question whether a key is to last.
func AboutInvited(k InvitedKey) string {
	return fmt.Sprintf("%s has let another PC of his in: %q, to compare: %s\nit was let in with his key %s (%q). Has he said so, and are they the same there?",
		clean(k.User), clean(k.Label), compared(k.SPKI), compared(k.By), clean(k.ByLabel))
}

// WriteNewDevice prints a new device with the command to run on the gateway.
func (a *Account) WriteNewDevice(w io.Writer, d NewDevice) error {
	run := fmt.Sprintf("hawser-agent enroll --access %s --pin %s (it asks for the code)", a.state.config.Hosts[0], a.rootPin())
	if d.File != "" {
		run = "hawser-agent enroll --file " + filepath.Base(d.File)
	}
	return writeFields(w, [][2]string{
		{"name", d.Name}, {"folder", d.Folder}, {"uid", d.UID.String()}, {"code", d.Code}, {"valid until", stamp(d.Expires)},
		{"file", d.File}, {"on the gateway", run},
	})
}

// WriteNewBatch prints a batch with the command to run on each of its gateways.
func (a *Account) WriteNewBatch(w io.Writer, b NewBatch) error {
	run := fmt.Sprintf("hawser-agent enroll --access %s --pin %s (it asks for the code)", a.state.config.Hosts[0], a.rootPin())
	if b.File != "" {
		run = "hawser-agent enroll --file " + filepath.Base(b.File)
	}
	names := batchNames(b.Name, b.Devices)
	return writeFields(w, [][2]string{
		{"batch", b.Lookup}, {"devices", fmt.Sprintf("%d, %s to %s", b.Devices, names[0], names[len(names)-1])}, {"folder", b.Folder},
		{"code", b.Code}, {"valid until", stamp(b.Expires)}, {"file", b.File}, {"on each gateway", run},
		{"then, here", "hawser device confirm --batch " + b.Lookup},
	})
}

// WriteClaim shows the gateway that waits with a code, by the word of the server.
func WriteClaim(w io.Writer, c api.Claim) error {
	fields := [][2]string{{"a gateway waits at", c.Address}, {"since", stamp(c.Since)}, {"last heard", stamp(c.Seen)}}
	for _, k := range slices.Sorted(maps.Keys(c.Hints)) {
		fields = append(fields, [2]string{"hint " + k, c.Hints[k]})
	}
	return writeFields(w, fields)
}

// WriteKeys shows keys that a person is to compare with the gateways.
func WriteKeys(w io.Writer, devices []StatedDevice) error {
	rows := [][]string{{"NAME", "UID", "KEY", "ADDRESS", "HINTS"}}
	for _, d := range devices {
		var hints []string
		for _, k := range slices.Sorted(maps.Keys(d.Hints)) {
			hints = append(hints, k+"="+d.Hints[k])
		}
		rows = append(rows, []string{d.Name, d.UID.String(), compared(d.SPKI), d.Address, strings.Join(hints, " ")})
	}
	return writeTable(w, rows)
}

// WriteNewUser prints a new user, or a new code of one, with the command to run on his computer.
func (a *Account) WriteNewUser(w io.Writer, u NewUser) error {
	return writeFields(w, [][2]string{
		{"user", u.Name}, {"role", string(u.Role)}, {"code", u.Code}, {"valid until", stamp(u.Expires)},
		{"on the user's PC", fmt.Sprintf("hawser login %s --pin %s (it asks for the code)", a.state.config.Hosts[0], a.rootPin())},
	})
}

// WriteUsers writes a table, a line for each computer of a user.
func WriteUsers(w io.Writer, users []api.User) error {
	rows := [][]string{{"NAME", "ROLE", "ENDS", "REVOKED", "KEY", "LOGIN"}}
	for _, u := range users {
		row := []string{u.Name, string(u.Role), stamp(u.Ends), stamp(u.Revoked), "", ""}
		for _, k := range u.Keys {
			rows = append(rows, append(slices.Clone(row[:4]), spki(k.SPKI), stamp(k.Login)))
		}
		if len(u.Keys) == 0 {
			rows = append(rows, row)
		}
	}
	return writeTable(w, rows)
}

// WriteUser tells who a user is, and lists his computers.
func WriteUser(w io.Writer, u UserInfo) error {
	fields := [][2]string{{"user", u.User}, {"role", string(u.Role)}, {"devices", scopeOf(u.Stated, devicesOf)}, {"targets", scopeOf(u.Stated, targetsOf)},
		{"ends", stamp(u.Ends)}, {"revoked", stamp(u.Revoked)}}
	if u.Codes > 0 {
		fields = append(fields, [2]string{"open codes", strconv.Itoa(u.Codes)})
	}
	err := writeFields(w, fields)
	if err == nil && len(u.Logins) > 0 {
		rows := [][]string{{"KEY", "LOGIN", "CONFIRMED"}}
		for _, k := range u.Logins {
			rows = append(rows, []string{spki(k.SPKI), stamp(k.Login), yesNo(slices.Contains(u.Keys, k.SPKI))})
		}
		err = writeTable(w, rows)
	}
	if err == nil && len(u.Hangs) > 0 {
		fmt.Fprintln(w, "Stated by this admin alone, and reached by nobody when he ends:")
		err = writeStated(w, u.Hangs)
	}
	return err
}

func devicesOf(s *identity.Scope) []string { return s.Devices }
func targetsOf(s *identity.Scope) []string { return s.Targets }

// scopeOf is one list of a scope; that of whoever has none has no end.
func scopeOf(one Stated, list func(*identity.Scope) []string) string {
	switch {
	case one.Role == "":
		return ""
	case one.Scope == nil:
		return "*"
	}
	return strings.Join(list(one.Scope), " ")
}

// WriteRenewed says until when users are stated now.
func WriteRenewed(w io.Writer, users []identity.UserStatement) error {
	rows := [][]string{{"USER", "ROLE", "ENDS"}}
	for _, u := range users {
		rows = append(rows, []string{u.User, string(u.Role), stamp(time.Unix(u.Exp, 0))})
	}
	if len(users) == 0 {
		rows = [][]string{{"nobody is to be renewed"}}
	}
	return writeTable(w, rows)
}

// WriteRotated says what a change of the domain key has stated again.
func WriteRotated(w io.Writer, r Rotated) error {
	return writeFields(w, [][2]string{{"domain key", spki(r.Is)}, {"before", spki(r.Was)}, {"users", strings.Join(r.Users, " ")},
		{"keys", strconv.Itoa(r.Keys)}, {"devices", strconv.Itoa(r.Devices)}, {"codes that died", strconv.Itoa(r.Codes)}})
}

// WriteAdopted writes what was stated again, or would be.
func WriteAdopted(w io.Writer, found []Stated, done bool) error {
	if err := writeStated(w, found); err != nil {
		return err
	}
	text := "nothing is done yet: if all of it is right, give --yes"
	if done {
		text = "stated again"
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

// WriteChange shows a change to the person who is to approve it.
func WriteChange(w io.Writer, c Change) error {
	for _, part := range []struct {
		text string
		list []Stated
	}{
		{"What is signed again, if it is right:", c.Again},
		{"What counts no more:", c.Falls},
	} {
		if len(part.list) == 0 {
			continue
		}
		if _, err := fmt.Fprintln(w, part.text); err != nil {
			return err
		}
		if err := writeStated(w, part.list); err != nil {
			return err
		}
	}
	return nil
}

func writeStated(w io.Writer, list []Stated) error {
	rows := [][]string{{"WHO", "ROLE", "DEVICES", "TARGETS", "ENDS", "CODES", "KEYS"}}
	for _, one := range list {
		who, codes, keys := one.User, "", []string{}
		if who == "" {
			who = strings.TrimPrefix(one.Folder+"/"+one.Name, "/") + " " + one.UID.String()
		}
		if one.Codes > 0 {
			codes = strconv.Itoa(one.Codes) + " open"
		}
		for _, k := range one.Keys {
			keys = append(keys, spki(k))
		}
		rows = append(rows, []string{who, string(one.Role), scopeOf(one, devicesOf), scopeOf(one, targetsOf), stamp(one.Ends), codes, strings.Join(keys, " ")})
	}
	return writeTable(w, rows)
}

// WriteDomain says what is known of the domain.
func WriteDomain(w io.Writer, i DomainInfo) error {
	held := "not on this computer"
	switch {
	case i.Locked:
		held = "on this computer, under a passphrase"
	case i.Held:
		held = "on this computer, without a passphrase"
	}
	var newest time.Time
	if i.List > 0 {
		newest = time.UnixMilli(int64(i.List))
	}
	return writeFields(w, [][2]string{{"domain", i.Domain}, {"domain key", spki(i.SPKI)}, {"to compare", compared(i.SPKI)},
		{"whole key", i.Key.String()}, {"private key", held}, {"copy", copyOf(i)},
		{"newest list", stamp(newest)}, {"entries", strconv.Itoa(i.Entries)}})
}

// copyOf says whether there is a copy of a domain key that is here.
func copyOf(i DomainInfo) string {
	switch {
	case !i.Held:
		return ""
	case i.Copied:
		return "there is one elsewhere"
	}
	return "none: hawser domain export FILE makes one"
}

// compared is what people compare of a key, as the gateway shows it: 16 hex digits in groups of 4.
func compared(h identity.SPKI) string {
	var groups []string
	for text := h.String()[:16]; text != ""; text = text[4:] {
		groups = append(groups, text[:4])
	}
	return strings.Join(groups, " ")
}

// WriteDevices writes a table.
func WriteDevices(w io.Writer, devices []StatedDevice) error {
	rows := [][]string{{"NAME", "FOLDER", "UID", "STATE", "KEY", "ONLINE", "SINCE", "ADDRESS"}}
	for _, d := range devices {
		rows = append(rows, []string{d.Name, d.Folder, d.UID.String(), stateOf(d.Device), string(d.Key), yesNo(d.Online), stamp(d.Since), d.Address})
	}
	return writeTable(w, rows)
}

// stateOf is the state of a device as people look for it: that it is there twice comes before the rest.
func stateOf(d api.Device) string {
	if d.Cloned != nil {
		return "cloned"
	}
	return string(d.State)
}

// WriteMachines writes a table of the machines that use the identity of one device.
func WriteMachines(w io.Writer, machines []Machine) error {
	rows := [][]string{{"WORDS", "ADDRESS", "PROCESS", "SINCE", "SEEN"}}
	for _, m := range machines {
		rows = append(rows, []string{m.Words, m.Address, cut(m.Instance, 8), stamp(m.Since), stamp(m.At)})
	}
	return writeTable(w, rows)
}

// WriteDevice writes all that is known of a device.
func WriteDevice(w io.Writer, d StatedDevice) error {
	fields := [][2]string{
		{"name", d.Name}, {"folder", d.Folder}, {"uid", d.UID.String()}, {"domain", d.Domain}, {"state", stateOf(d.Device)}, {"online", yesNo(d.Online)},
		{"since", stamp(d.Since)}, {"address", d.Address}, {"created", stamp(d.Created)}, {"key", spki(d.SPKI)},
		{"stated", string(d.Key)}, {"valid until", stamp(d.NotAfter)}, {"by the code", d.Lookup},
	}
	for _, k := range slices.Sorted(maps.Keys(d.Hints)) {
		fields = append(fields, [2]string{"hint " + k, d.Hints[k]})
	}
	if c := d.Cloned; c != nil {
		fields = append(fields, [2]string{"cloned since", stamp(c.Since)}, [2]string{"accepted", spki(c.Accepted)})
	}
	err := writeFields(w, fields)
	if err == nil && len(d.Machines) > 0 {
		err = WriteMachines(w, d.Machines)
	}
	return err
}

// writeTable separates columns by two spaces; an empty field is a dash, so that scripts can count columns. By hand and
// not by text/tabwriter, which counts a Chinese character as one column.
func writeTable(w io.Writer, rows [][]string) error {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i := range row {
			if row[i] = clean(row[i]); row[i] == "" {
				row[i] = "-"
			}
			width[i] = max(width[i], cells(row[i]))
		}
	}
	out := bufio.NewWriter(w)
	for _, row := range rows {
		for i, field := range row {
			if i == len(row)-1 {
				fmt.Fprintln(out, field)
				break
			}
			out.WriteString(field + strings.Repeat(" ", width[i]-cells(field)+2))
		}
	}
	return out.Flush()
}

// writeFields writes one field a line, names aligned; empty ones are left out.
func writeFields(w io.Writer, fields [][2]string) error {
	width := 0
	for i := range fields {
		fields[i][0] = clean(fields[i][0])
		width = max(width, cells(fields[i][0]))
	}
	out := bufio.NewWriter(w)
	for _, f := range fields {
		if f[1] != "" {
			fmt.Fprintln(out, f[0]+strings.Repeat(" ", width-cells(f[0])+2)+clean(f[1]))
		}
	}
	return out.Flush()
}

// stamp formats a time as cli.md says, and the zero time as "".
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// spki formats the hash of a key, and the zero hash as "".
func spki(h identity.SPKI) string {
	if h.IsZero() {
		return ""
	}
	return h.String()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// WriteNewRelay prints a new relay with the command to run on its machine.
func (a *Account) WriteNewRelay(w io.Writer, r api.NewRelay) error {
	return writeFields(w, [][2]string{
		{"name", r.Name}, {"code", r.Code}, {"valid until", stamp(r.Expires)},
		{"on its machine", fmt.Sprintf("hawser-server enroll --dir DIR --host NAME --access %s --pin %s (it asks for the code)",
			a.state.config.Hosts[0], a.rootPin())},
	})
}

// WriteDecision writes a table of what both ends have measured of each relay, and then a line for each that says why it
// is chosen or not, which does not fit into the table. Times are in milliseconds.
func WriteDecision(w io.Writer, d api.Decision) error {
	rows := [][]string{{"RELAY", "VERDICT", "SCORE", "HERE RTT", "JITTER", "LOSS", "PORT", "DEVICE RTT", "JITTER", "LOSS", "PORT"}}
	for _, r := range d.Relays {
		row := []string{r.Name, string(r.Verdict), ""}
		if r.Verdict != api.VerdictOut { // no score of these was compared
			row[2] = tenths(r.ScoreMS)
		}
		rows = append(rows, append(append(row, measuredFields(r.Manager)...), measuredFields(r.Runtime)...))
	}
	return errors.Join(writeTable(w, rows), writeReasons(w, d))
}

// writeReasons says why each relay is chosen or not. The chosen one goes first. Sentences and no column: each would be
// as wide as the longest.
func writeReasons(w io.Writer, d api.Decision) error {
	chosen, losers := "no relay can carry a session", ""
	if d.Chosen != "" {
		chosen = "chosen: " + d.Chosen
	}
	switch d.Incumbent {
	case "", d.Chosen:
	default:
		chosen += ", before: " + d.Incumbent
	}
	for _, r := range d.Relays {
		if r.Verdict != api.VerdictChosen {
			losers += clean(fmt.Sprintf("%s %s: %s", r.Name, r.Verdict, r.Reason)) + "\n"
		}
	}
	_, err := io.WriteString(w, clean(chosen)+"\n"+losers)
	return err
}

// measuredFields are the columns of one end: numbers, the reason why there are none, or nothing.
func measuredFields(m *api.Measured) []string {
	switch {
	case m == nil:
		return []string{"", "", "", ""}
	case m.Reason != "":
		return []string{string(m.Reason), "", "", ""}
	}
	return []string{tenths(m.RTTMS), tenths(m.JitterMS), strconv.Itoa(m.LossPct) + "%", strconv.Itoa(int(m.Port))}
}

// tenths formats milliseconds with one decimal.
func tenths(ms float64) string { return strconv.FormatFloat(ms, 'f', 1, 64) }

// clean makes what a peer said safe for a terminal. Each writer here calls it, and not each caller, so that a new field
// cannot be forgotten.
func clean(s string) string { return answer.Clean(s) }

// cells is how many columns of a terminal a clean string takes: letters of East Asian scripts take two (UAX 11), except
// for the half-width forms. Devices are named in the script of the site; with one column each a table of Chinese names
// would not be one.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n++
		if unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) && (r < 0xff61 || r > 0xffdc) {
			n++
		}
	}
	return n
}

// cut cleans a text of unknown length and shortens it.
func cut(s string, maxRunes int) string {
	s = clean(s)
	for i := range s {
		if maxRunes--; maxRunes < 0 {
			return s[:i] + "..."
		}
	}
	return s
}

// isWord reports whether s has the form of a reason or code: lower-case words joined by dashes. What passes can do no
// harm in a log, and a new server's word is passed on though this version does not know it.
func isWord(s string) bool {
	return s != "" && len(s) <= 40 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-") == ""
}

// WriteRelays writes a table of the relays of the registry.
func WriteRelays(w io.Writer, relays []api.RegisteredRelay) error {
	rows := [][]string{{"NAME", "STATE", "ONLINE", "SINCE", "HOSTS", "SESSIONS", "KEY"}}
	for _, r := range relays {
		load := ""
		if r.Online {
			load = fmt.Sprintf("%d/%d", r.Pipes, r.Max)
		}
		rows = append(rows, []string{r.Name, string(r.State), yesNo(r.Online), stamp(r.Since), strings.Join(r.Hosts, " "), load, spki(r.SPKI)})
	}
	return writeTable(w, rows)
}
