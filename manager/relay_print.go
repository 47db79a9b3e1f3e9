package manager

import (
	"errors"
	"fmt"
	"io"
	"strconv"
)

// WriteNewRelay says how a new relay is brought in: with the very command to run on its machine.
func (a *Account) WriteNewRelay(w io.Writer, r NewRelay) error {
	return writeFields(w, [][2]string{
		{"name", r.Name}, {"code", r.Code}, {"valid until", stamp(r.Expires)},
		{"on its machine", fmt.Sprintf("hawser-server enroll --dir DIR --host NAME --access %s --code %s --pin %s",
			a.state.config.Hosts[0], r.Code, a.rootPin())},
	})
}

// WriteDecision writes a table of what both ends have measured of each relay, and then a line for each that says why it
// is chosen or not: there is no room for that in the table. Times are in milliseconds.
func WriteDecision(w io.Writer, d Decision) error {
	rows := [][]string{{"RELAY", "VERDICT", "SCORE", "HERE RTT", "JITTER", "LOSS", "PORT", "DEVICE RTT", "JITTER", "LOSS", "PORT"}}
	for _, r := range d.Relays {
		row := []string{r.Name, r.Verdict, ""}
		if r.Verdict != verdictOut { // what is out is not compared
			row[2] = tenths(r.Score)
		}
		rows = append(rows, append(append(row, r.Manager.fields()...), r.Runtime.fields()...))
	}
	return errors.Join(writeTable(w, rows), writeReasons(w, d))
}

// The verdicts of access §8 that are shown otherwise than as they are.
const (
	verdictChosen = "chosen"
	verdictOut    = "out"
)

// writeReasons says why each relay is chosen or not. The chosen one goes first.
func writeReasons(w io.Writer, d Decision) error {
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
		if r.Verdict != verdictChosen {
			losers += clean(fmt.Sprintf("%s %s: %s", r.Name, r.Verdict, r.Reason)) + "\n"
		}
	}
	_, err := io.WriteString(w, clean(chosen)+"\n"+losers)
	return err
}

// fields are the columns of one end: numbers, the reason why there are none, or nothing.
func (m *Measured) fields() []string {
	switch {
	case m == nil:
		return []string{"", "", "", ""}
	case m.Reason != "":
		return []string{string(m.Reason), "", "", ""}
	}
	return []string{tenths(m.RTT), tenths(m.Jitter), strconv.FormatFloat(m.Loss, 'f', 0, 64) + "%", strconv.Itoa(int(m.Port))}
}

// tenths is a number of milliseconds for people.
func tenths(ms float64) string { return strconv.FormatFloat(ms, 'f', 1, 64) }
