package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"hawser/identity"
	"hawser/internal/strictyaml"
	"hawser/internal/wait"
)

// Terms limit a rule to some users, or to some hours (session §5). A nil *Terms is for everybody, always.
type Terms struct {
	Users []string // as in their statements; nil: everybody
	Hours []Hours  // nil: always
}

// Hours are a span of each of some days, in UTC.
type Hours struct {
	days     uint8 // bit 0: Monday
	from, to int   // minutes of the day; to may be 24:00
}

// Limits of a rule in agent.yaml.
const (
	maxRuleUsers = 64
	maxRuleHours = 32
)

const dayNames = "MoTuWeThFrSaSu"

// dayOf is the number of a day, from Monday on, -1 for none.
func dayOf(s string) int {
	if i := strings.Index(dayNames, s); len(s) == 2 && i >= 0 && i%2 == 0 {
		return i / 2
	}
	return -1
}

// ParseHours reads DAY HH:MM-HH:MM or DAY-DAY HH:MM-HH:MM. Days go on through the week's end, as Fr-Mo; hours do not go
// over midnight, since it would not be clear whose day that is.
func ParseHours(s string) (h Hours, err error) {
	bad := func(what string) (Hours, error) {
		return Hours{}, fmt.Errorf("%.64q: %s; write Mo-Fr 05:00-17:00 or Sa 08:00-24:00, in UTC", s, what)
	}
	days, span, ok := strings.Cut(s, " ")
	if !ok {
		return bad("days and hours belong together")
	}
	first, last, isRange := strings.Cut(days, "-")
	if !isRange {
		last = first
	}
	from, to := dayOf(first), dayOf(last)
	if from < 0 || to < 0 {
		return bad("days are Mo, Tu, We, Th, Fr, Sa, Su")
	}
	for d := from; ; d = (d + 1) % 7 {
		if h.days |= 1 << d; d == to {
			break
		}
	}
	begin, end, _ := strings.Cut(strings.TrimLeft(span, " "), "-")
	var ok1, ok2 bool
	h.from, ok1 = parseMinute(begin)
	h.to, ok2 = parseMinute(end)
	switch {
	case !ok1 || !ok2:
		return bad("not hours")
	case h.from >= h.to:
		return bad("they end before they begin: over midnight it is two")
	}
	return h, nil
}

// parseMinute reads HH:MM, 24:00 included.
func parseMinute(s string) (int, bool) {
	if len(s) != 5 || s[2] != ':' || strings.Trim(s[:2]+s[3:], "0123456789") != "" {
		return 0, false
	}
	hour, minute := int(s[0]-'0')*10+int(s[1]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
	return hour*60 + minute, minute < 60 && hour*60+minute <= 24*60
}

// String is the hours as ParseHours reads them.
func (h Hours) String() string {
	first, last := 0, 0
	for d := range 7 { // the first day is one after a day that is not among them
		if h.has(d) && !h.has((d+6)%7) {
			first = d
		}
		if h.has(d) && !h.has((d+1)%7) {
			last = d
		}
	}
	if h.days == 1<<7-1 {
		first, last = 0, 6
	}
	days := dayNames[2*first : 2*first+2]
	if last != first {
		days += "-" + dayNames[2*last:2*last+2]
	}
	return fmt.Sprintf("%s %02d:%02d-%02d:%02d", days, h.from/60, h.from%60, h.to/60, h.to%60)
}

func (h Hours) has(day int) bool { return h.days&(1<<day) != 0 }

// at tells whether a moment is within the hours, and when the span ends. It is pure.
func (h Hours) at(t time.Time) (open bool, until time.Time) {
	t = t.UTC()
	midnight := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	from, to := midnight.Add(time.Duration(h.from)*time.Minute), midnight.Add(time.Duration(h.to)*time.Minute)
	return h.has((int(t.Weekday())+6)%7) && !t.Before(from) && t.Before(to), to
}

// names tells whether a rule is for a user.
func (t *Terms) names(user string) bool {
	return t == nil || t.Users == nil || slices.Contains(t.Users, user)
}

// at tells whether a rule is open at a moment, and until when: zero for always. Spans that meet are one. It is pure.
func (t *Terms) at(now time.Time) (open bool, until time.Time) {
	if t == nil || t.Hours == nil {
		return true, time.Time{}
	}
	if now.IsZero() {
		return false, time.Time{}
	}
	until = now
	for grown := true; grown; {
		grown = false
		for _, h := range t.Hours {
			if in, to := h.at(until); in {
				open, until, grown = true, to, true
			}
		}
		if until.Sub(now) > 8*24*time.Hour { // all of the week
			return true, time.Time{}
		}
	}
	if !open {
		until = time.Time{}
	}
	return open, until
}

// String says for whom and when.
func (t *Terms) String() string {
	if t == nil {
		return ""
	}
	var parts []string
	if t.Users != nil {
		parts = append(parts, "for "+strings.Join(t.Users, ", "))
	}
	if t.Hours != nil {
		parts = append(parts, "at "+strings.Join(texts(t.Hours), ", ")+" UTC")
	}
	return strings.Join(parts, ", ")
}

// rawRule is an entry of allow as it is written: a rule, or an object with it.
type rawRule struct {
	To    string   `yaml:"to,plain"`
	Users []string `yaml:"users"`
	Hours []string `yaml:"hours"`
}

// parseRules reads allow; nil: the file does not have it.
func parseRules(list []rawRule, to *[]Rule) error {
	if list == nil {
		return nil
	}
	*to = make([]Rule, len(list))
	for i, raw := range list {
		r, err := raw.parse()
		if inner, ok := errors.AsType[*strictyaml.Error](err); ok {
			return strictyaml.At(fmt.Sprintf("allow.%d", i+1), inner)
		}
		if err != nil {
			return strictyaml.AtItem("allow", i, err)
		}
		(*to)[i] = r
	}
	return nil
}

func (raw rawRule) parse() (r Rule, err error) {
	if raw.To == "" {
		return r, errors.New("a rule needs to: what may be reached")
	}
	if r, err = ParseRule(raw.To); err != nil || raw.Users == nil && raw.Hours == nil {
		return r, err
	}
	r.Terms = &Terms{}
	// An empty list may mean nobody, or everybody.
	if raw.Users != nil && len(raw.Users) == 0 || len(raw.Users) > maxRuleUsers {
		return r, strictyaml.At("users", fmt.Errorf("want 1 to %d names; without the key the rule is for everybody", maxRuleUsers))
	}
	if raw.Hours != nil && len(raw.Hours) == 0 || len(raw.Hours) > maxRuleHours {
		return r, strictyaml.At("hours", fmt.Errorf("want 1 to %d spans; without the key the rule is for all hours", maxRuleHours))
	}
	label := func(s string) (string, error) { return s, identity.CheckLabel(s) }
	if err = items("users", raw.Users, label, &r.Terms.Users); err == nil {
		err = items("hours", raw.Hours, ParseHours, &r.Terms.Hours)
	}
	return r, err
}

// closing ends streams when the hours are over in which their rule is open: one timer for all of them. The zero value needs a
// bell.
type closing struct {
	bell wait.Bell // rings when there is another one

	mu   sync.Mutex // guards open
	open map[*limited]struct{}
}

// limited is a stream that ends at a moment.
type limited struct {
	until time.Time
	end   func()
}

// add has end called when until is over, at most once, and not after remove.
func (c *closing) add(until time.Time, end func()) (remove func()) {
	if until.IsZero() {
		return func() {}
	}
	one := &limited{until, end}
	c.mu.Lock()
	if c.open == nil {
		c.open = make(map[*limited]struct{})
	}
	c.open[one] = struct{}{}
	c.mu.Unlock()
	c.bell.Ring()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.open, one)
	}
}

// due ends what is over, and returns how long the rest can be left alone.
func (c *closing) due(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := lookEvery
	for one := range c.open {
		if now.Before(one.until) {
			rest = min(rest, one.until.Sub(now))
			continue
		}
		delete(c.open, one)
		one.end()
	}
	if len(c.open) == 0 {
		return 0
	}
	return rest
}

// keepHours ends the streams whose hours are over, until ctx ends. The clock may be set, or a list may come, at any time: it
// is looked at every few seconds while there is one.
func (a *Agent) keepHours(ctx context.Context) {
	c := &a.sessions.closing
	for ctx.Err() == nil {
		var due <-chan time.Time // never, while there is none
		if rest := c.due(a.ruleTime()); rest > 0 {
			due = time.After(rest)
		}
		select {
		case <-due:
		case <-c.bell:
		case <-ctx.Done():
		}
	}
}

// ruleTime is the time by which hours are judged: that of statements (identity §16.4).
func (a *Agent) ruleTime() time.Time {
	now := a.statementTime()
	if known, err := a.owners.of(a.self.Load()); err == nil {
		now = known.Lists().Now(now)
	}
	return now
}
