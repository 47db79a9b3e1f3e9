package provision

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"hawser/identity/identitytest"
	"hawser/internal/durable"
	"hawser/transport"
)

const whole = "# press 4, hall 2\r\naccess hawser.example.com\r\naccess\t192.0.2.10:8443\r\n\r\ncode XXXX-YYYY\r\n" +
	"pin AB:CD 5f3c5f3c5f3c5f3c5f3c5f3c5f3c5f3c5f3c5f3c5f3c5f3c5f3c5f3c5f3c\r\nports 8443\r\nrelay relay2.example.com\r\n" +
	"relay https://192.0.2.20:443/\r\nname Presse 4, Halle Süd\r\nlan 192.168.20.1/24\r\ntime ntp.example.com \r\n" +
	"agent allow: [\"192.168.20.20:502\"]\r\nlater what nobody here knows\r\n"

func TestFileIsReadAsItIsDocumented(t *testing.T) {
	f, err := Parse([]byte("\ufeff" + whole))
	if err != nil {
		t.Fatal(err)
	}
	want := File{
		Access: []string{"hawser.example.com", "192.0.2.10:8443"}, Relays: []string{"relay2.example.com", "192.0.2.20:443"},
		Ports: []transport.Port{8443}, Code: "XXXX-YYYY", Pin: f.Pin, Name: "Presse 4, Halle Süd", LAN: netip.MustParsePrefix("192.168.20.1/24"),
		Time: []string{"ntp.example.com"}, Agent: []string{`allow: ["192.168.20.20:502"]`},
	}
	if !reflect.DeepEqual(f, want) || !strings.HasPrefix(f.Pin.String(), "abcd5f3c") {
		t.Errorf("%+v\nwant %+v", f, want)
	}
	if again, err := Parse(f.Text()); err != nil || !reflect.DeepEqual(again, f) {
		t.Errorf("%s\nis read as %+v, %v", f.Text(), again, err)
	}
}

func TestRootInTheFile(t *testing.T) {
	pki, other := identitytest.New(time.Now()), identitytest.New(time.Now())
	text := "access a.example\n" + string(pki.Roots.PEM()) + "name press\n"
	f, err := Parse([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
	if err != nil || f.Roots == nil || !bytes.Equal(f.Roots.PEM(), pki.Roots.PEM()) || f.Name != "press" {
		t.Fatalf("%+v, %v", f, err)
	}
	if again, err := Parse(f.Text()); err != nil || !bytes.Equal(again.Roots.PEM(), f.Roots.PEM()) {
		t.Errorf("%v", err)
	}
	if _, err := Parse([]byte(text + "pin " + pki.Pin().String())); err != nil {
		t.Error(err)
	}
	if _, err := Parse([]byte(text + "pin " + other.Pin().String())); err == nil || !strings.Contains(err.Error(), "pin: it is not that of") {
		t.Error(err)
	}
}

func TestBadFilesNameLineAndKey(t *testing.T) {
	t.Attr("id", "A1-input")
	for text, want := range map[string]string{
		"":                                  "1: access: no Access Server is named",
		"code X\n":                          "1: access: no Access Server",
		"access a.example\naccess\n":        "2: access: no value",
		"access a.example b.example":        "1: access: \"a.example b.example\": one value",
		"access http://a.example":           "1: access: host",
		"access a.example\npin 12":          "2: pin: bad-name: parse pin: want 64 hex digits, got 2",
		"access a.example\nports 0":         "2: ports: \"0\": want a port",
		"access a.example\nlan 192.168.1.1": "2: lan: ",
		"access a.example\ncode A\ncode B":  "3: code: it is there twice",
		"access a.example\nname \x1b[2J":    "2: name: a control character",
		"access a.example\n" + pemBegin:     "2: root: the certificate has no end",
		"access a.example\n" + pemBegin + "\nAAAA\n" + pemEnd: "4: root: ",
		"access \xff":                                    "1: not UTF-8",
		strings.Repeat("#", maxBytes+1):                  "1: over 64 KiB",
		strings.Repeat("access a.example\n", maxItems+1): "65: access: more than 64",
	} {
		if f, err := Parse([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.60q: %+v, %v, want %q", text, f, err, want)
		}
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "press-4")
	if _, err := Load(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("access a b"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil || !strings.HasPrefix(err.Error(), file+":1: access: ") {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := Load(file); err != nil || f.Name != "Presse 4, Halle Süd" {
		t.Errorf("%+v, %v", f, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("access a.example\n" + pemBegin + "\nAAAA\n" + pemEnd))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse(b)
		if err != nil {
			return
		}
		again, err := Parse(file.Text())
		if err != nil || !bytes.Equal(again.Text(), file.Text()) {
			t.Fatalf("%q\nis written as %q\nand that is read as %q, %v", b, file.Text(), again.Text(), err)
		}
	})
}

func TestAFileWithACodeIsForOneReader(t *testing.T) {
	file := filepath.Join(t.TempDir(), "provision")
	if err := os.WriteFile(file, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := LoadSecret(file, nil); err != nil || f.Code != "XXXX-YYYY" {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err := LoadSecret("-", strings.NewReader(whole)); err != nil || f.Code != "XXXX-YYYY" {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := LoadSecret("-", strings.NewReader(strings.Repeat("#", maxBytes+1))); err == nil {
		t.Error("an endless file was read")
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSecret(file, nil); runtime.GOOS != "windows" && !errors.Is(err, durable.ErrExposed) {
		t.Errorf("a file that others may read: %v", err)
	}
}
