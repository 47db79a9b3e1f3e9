package netcheck

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hawser/transport"
)

// Every language has every phrase, with the same arguments in it.
func TestLanguagesSayTheSame(t *testing.T) {
	verb := regexp.MustCompile(`%(?:\[\d\])?[+.\d]*[a-z]`)
	for _, l := range Languages() {
		words := lexiconOf(l)
		for p := range phrases {
			text, in := words.say(p), english().say(p)
			if strings.TrimSpace(text) == "" {
				t.Errorf("%s has no phrase %d (%q)", l, p, in)
			}
			got, want := verb.FindAllString(text, -1), verb.FindAllString(in, -1)
			if !slices.Equal(got, want) {
				t.Errorf("%s: %q has %v, and %q has %v", l, text, got, in, want)
			}
			if harmless(text) != text {
				t.Errorf("%s: %q would not be printed as it is", l, text)
			}
		}
	}
	for p := range phrases {
		same := []phrase{wPlace, rPort, sDNS, sDNSOdd, rTheirAccess, rTheirRelay, sGateway}
		if german().say(p) == english().say(p) && !slices.Contains(same, p) {
			t.Errorf("%q is English in German", german().say(p))
		}
	}
}

// Nothing is left to be filled in, in whatever sheet.
func TestNoPhraseIsLeftOpen(t *testing.T) {
	reports := map[string]Report{"golden": golden(), "empty": {}, "portal": {Ways: []WayRow{to(80, transport.CaptivePortal)}},
		"refused": {Names: []NameRow{{Host: "a.example", OK: true, servers: accessOn("a.example", 443)}}, Ways: []WayRow{shut(443, transport.Refused)}}}
	for _, l := range Languages() {
		for name, r := range reports {
			for _, pc := range []bool{true, false} {
				text := string((&Sheet{Report: r, Language: l, PC: pc, ALPN: transport.ALPNAccess}).Text())
				if strings.Contains(text, "%!") || strings.Contains(text, "%s") || strings.Contains(text, "%d") {
					t.Errorf("%s of %s, PC %v:\n%s", l, name, pc, text)
				}
			}
		}
	}
}

func TestSheetIsInTheLanguageAskedFor(t *testing.T) {
	t.Attr("id", "A4-report")
	s := goldenSheet()
	s.Language, s.Contact, s.Device, s.MAC = German, "Maschinenbau Süd, +49 711 000", "Presse 4", "02:00:00:00:00:01"
	text, page := string(s.Text()), string(s.HTML())
	for _, want := range []string{"Antrag auf Firewall-Freischaltung", "Maschinenbau Süd, +49 711 000", "Presse 4", "02:00:00:00:00:01", "Datenvolumen",
		"Wie man es abschaltet", "openssl s_client -alpn hawser-access/1 -connect a.example:443", "nicht über einen Proxy", "von der TLS-Inspektion ausnehmen"} {
		if !strings.Contains(text, want) || !strings.Contains(page, inert(want)) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if !strings.Contains(page, `<html lang="de">`) {
		t.Error("the page does not say its language")
	}
}

func TestTitleSaysWhetherAnythingIsAskedFor(t *testing.T) {
	good := Report{Names: []NameRow{{Host: "a.example", OK: true, servers: accessOn("a.example", 443)}}, Ways: []WayRow{to(443, "")}}
	good.Verdict = good.judge(english())
	for want, s := range map[string]*Sheet{
		"Network check: remote maintenance gateway, nothing is missing":                                {Report: good},
		"Network check: remote maintenance gateway, nothing is missing (from a technician's computer)": {Report: good, PC: true},
		"Netzprüfung: Gateway für die Fernwartung, es fehlt nichts":                                    {Report: good, Language: German},
		"Firewall request: remote maintenance gateway":                                                 {Report: golden()},
	} {
		if got := s.title(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func ExampleSheet() {
	good := Report{Names: []NameRow{{Host: "a.example", OK: true, servers: accessOn("a.example", 443)}}, Ways: []WayRow{to(443, "")}}
	s := &Sheet{Report: good, ALPN: transport.ALPNAccess}
	fmt.Println(s.howToTest()[0])
	// Output: From a computer that has the same rules: openssl s_client -alpn hawser-access/1 -connect a.example:443
}
