package identity

import (
	"encoding/json"
	"strings"
	"testing"
)

const someUID = "00112233445566778899aabbccddeeff"

func TestUIDHasOneSpelling(t *testing.T) {
	u := must(ParseUID(someUID))(t)
	if u.String() != someUID || u[1] != 0x11 {
		t.Errorf("got %s", u)
	}
	for _, bad := range []string{
		"", someUID[1:], someUID + "0", strings.ToUpper(someUID), " " + someUID[1:], someUID[:31] + "g",
		someUID[:31] + "\x00", strings.Repeat("0", 32), "00112233-4455-6677-8899-aabbccddeeff",
	} {
		_, err := ParseUID(bad)
		wantFault(t, err, FaultBadName)
	}
}

func TestNewUIDsDiffer(t *testing.T) {
	seen := map[UID]bool{}
	for range 10_000 {
		u := NewUID()
		if u.IsZero() || seen[u] {
			t.Fatal("zero or repeated UID")
		}
		seen[u] = true
	}
}

func TestZeroIsEmptyInJSON(t *testing.T) {
	type record struct {
		UID  UID
		SPKI SPKI
	}
	for _, r := range []record{{}, {NewUID(), SPKI{1}}} {
		b := must(json.Marshal(r))(t)
		back := record{UID{9}, SPKI{9}}
		if err := json.Unmarshal(b, &back); err != nil || back != r {
			t.Errorf("%s came back as %v, %v", b, back, err)
		}
	}
	var r record
	if err := json.Unmarshal([]byte(`{"UID":"0"}`), &r); FaultOf(err) != FaultBadName {
		t.Errorf("got %v", err)
	}
	if err := json.Unmarshal([]byte(`{"SPKI":"0"}`), &r); FaultOf(err) != FaultBadName {
		t.Errorf("got %v", err)
	}
}

func TestParseSPKIRefusesZeroAndUpperCase(t *testing.T) {
	good := strings.Repeat("0a", 32)
	if must(ParseSPKI(good))(t).String() != good {
		t.Error("no round trip")
	}
	for _, bad := range []string{"", good[2:], strings.ToUpper(good), strings.Repeat("0", 64)} {
		_, err := ParseSPKI(bad)
		wantFault(t, err, FaultBadName)
	}
}

func TestNamesRoundTrip(t *testing.T) {
	uid := must(ParseUID(someUID))(t)
	for want, n := range map[string]Name{
		"hawser://plant-1/device/" + someUID: DeviceName("plant-1", uid),
		"hawser://plant-1/user/ada":          UserName("plant-1", "ada"),
		"hawser:///relay/r1":                 RelayName("r1"),
		"hawser:///access/a":                 AccessName("a"),
		"hawser://" + strings.Repeat("d", 63) + "/user/" + strings.Repeat("u", 63): UserName(strings.Repeat("d", 63), strings.Repeat("u", 63)),
	} {
		if n.String() != want {
			t.Errorf("got %s, want %s", n, want)
		}
		if back := must(ParseName(want))(t); back != n {
			t.Errorf("%s came back as %v", want, back)
		}
	}
}

func TestParseNameRefusesOtherSpellings(t *testing.T) {
	for _, bad := range []string{
		"", "hawser://", "hawser:///", "hawser:////", "hawser:///relay", "hawser:///relay/", "hawser:///relay/r1/",
		"hawser:///relay/r1?x", "hawser:///relay/r1#x", "HAWSER:///relay/r1", "hawser:/relay/r1", "http:///relay/r1",
		"hawser:///relay/R1", "hawser:///relay/r%31", "hawser:///relay/r1\x00", "hawser:///relay/r1\n", " hawser:///relay/r1",
		"hawser:///relay/..", "hawser:///relay/-r", "hawser:///relay/r-", "hawser:///Relay/r1", "hawser:///root/r1",
		"hawser://plant/relay/r1", "hawser://plant:80/user/ada", "hawser://a@plant/user/ada", "hawser://pl.ant/user/ada",
		"hawser:///user/ada", "hawser:///device/" + someUID, "hawser://plant/device/" + strings.ToUpper(someUID),
		"hawser://plant/device/" + strings.Repeat("0", 32), "hawser://plant/device/ada", "hawser://plant/user/ada/device/" + someUID,
		"hawser://plant/user/ad\u0430", "hawser://" + strings.Repeat("d", 64) + "/user/ada", strings.Repeat("/", 1<<16),
	} {
		n, err := ParseName(bad)
		if FaultOf(err) != FaultBadName || n != (Name{}) {
			t.Errorf("%.80q: got %v, %v", bad, n, err)
		}
	}
}

func TestCheckDisplayNameAllowsWhatIsInert(t *testing.T) {
	for _, good := range []string{"a", "7", "Press 3, hall_2 - v1.0", "Prüfstand Süd", "Пресс", "押出機", "압출기", strings.Repeat("ü", 64)} {
		if err := CheckDisplayName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", " a", "a ", "-a", ".a", "_a", ",a", strings.Repeat("ü", 65), "a\nb", "a\rb", "a\x00", "a\x1b[31m", "a\tb", "a\u00a0b",
		"a\u202eb", "a\u2066b", "a\u200bb", "a\ufeffb", "a\u0301", "\u3164", "a\uffa0", "\u05d0\u05d1", "\u0627", "<b>", "a&b", "a\"b", "a'b",
		"=1+1", "+1", "@a", "a;b", "a|b", "a$b", "a`b", "a/b", `a\b`, "a\xff", "a\u2028b", "a{b}", "a%b",
	} {
		wantFault(t, CheckDisplayName(bad), FaultBadName)
	}
}
