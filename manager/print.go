package manager

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"hawser/identity"
)

// WriteJSON writes v as one line of JSON in pure ASCII: encoding/json leaves DEL and the C1 and bidi controls as they are,
// on which terminals act.
func WriteJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	for _, r := range b.String() {
		switch {
		case r == '\n' || ' ' <= r && r <= '~':
			out.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(out, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(out, `\u%04x`, r)
		}
	}
	return out.Flush()
}

// WriteInfo says who is logged in.
func WriteInfo(w io.Writer, i Info) error {
	return writeFields(w, [][2]string{
		{"user", i.User}, {"domain", i.Domain}, {"key", i.SPKI.String()}, {"valid until", stamp(i.NotAfter)}, {"home", i.Home},
	})
}

// WriteNewDevice says how a new device is brought in: with the very command to run on the gateway.
func (a *Account) WriteNewDevice(w io.Writer, d NewDevice) error {
	return writeFields(w, [][2]string{
		{"name", d.Name}, {"uid", d.UID.String()}, {"code", d.Code}, {"valid until", stamp(d.Expires)},
		{"on the gateway", fmt.Sprintf("hawser-agent enroll --access %s --code %s --pin %s", a.state.config.Hosts[0], d.Code, a.rootPin())},
	})
}

// WriteDevices writes a table.
func WriteDevices(w io.Writer, devices []Device) error {
	rows := [][]string{{"NAME", "UID", "STATE", "ONLINE", "SINCE", "ADDRESS"}}
	for _, d := range devices {
		rows = append(rows, []string{d.Name, d.UID.String(), d.State, yesNo(d.Online), stamp(d.Since), d.Address})
	}
	return writeTable(w, rows)
}

// WriteDevice writes all that is known of a device.
func WriteDevice(w io.Writer, d Device) error {
	fields := [][2]string{
		{"name", d.Name}, {"uid", d.UID.String()}, {"domain", d.Domain}, {"state", d.State}, {"online", yesNo(d.Online)},
		{"since", stamp(d.Since)}, {"address", d.Address}, {"created", stamp(d.Created)}, {"key", spki(d.SPKI)},
		{"valid until", stamp(d.NotAfter)},
	}
	for _, k := range slices.Sorted(maps.Keys(d.Hints)) {
		fields = append(fields, [2]string{"hint " + k, d.Hints[k]})
	}
	return writeFields(w, fields)
}

// WriteRecords writes a table of audit records.
func WriteRecords(w io.Writer, records []Record) error {
	rows := [][]string{{"TIME", "ACTOR", "ACTION", "OBJECT", "RESULT", "DETAIL"}}
	for _, r := range records {
		rows = append(rows, []string{stamp(r.Time), r.Actor, r.Action, r.Object, r.Result, r.Detail})
	}
	return writeTable(w, rows)
}

// writeTable aligns columns by two spaces; an empty field is a dash, so that columns can be counted.
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

// stamp is a time as cli.md wants it, and nothing for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// spki is the hash of a key, and nothing for none.
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
