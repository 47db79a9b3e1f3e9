package strictyaml_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"hawser/internal/strictyaml"
)

type raw struct {
	Hosts []string      `yaml:"hosts"`
	Ports []uint16      `yaml:"ports"`
	Name  string        `yaml:"name,omitempty"`
	Limit int           `yaml:"limit"`
	Wait  time.Duration `yaml:"wait"`
	On    bool          `yaml:"on"`
	Sub   *struct {
		Name string `yaml:"name"`
		Deep struct {
			Name string `yaml:"name"`
		} `yaml:"deep"`
	} `yaml:"sub"`
	Proxy strictyaml.Later `yaml:"proxy"`
}

func TestValuesAreReadAsTheyAreWritten(t *testing.T) {
	got := raw{Name: "default", Limit: 7}
	doc, err := strictyaml.Decode([]byte("hosts: [a, 1.20, yes]\nports: [443]\nwait: 30s\non: true\nsub:\n  deep: {name: ~x}\n"), &got)
	if err != nil || doc.Empty {
		t.Fatal(err)
	}
	want := raw{Hosts: []string{"a", "1.20", "yes"}, Ports: []uint16{443}, Name: "default", Limit: 7, Wait: 30 * time.Second, On: true, Sub: got.Sub}
	if !reflect.DeepEqual(got, want) || got.Sub == nil || got.Sub.Deep.Name != "~x" {
		t.Errorf("got %+v", got)
	}
}

// A missing list, an empty one, and a section without anything in it are three things.
func TestWhatIsNamedIsNotNil(t *testing.T) {
	var none, some raw
	for _, text := range []string{"", "# a comment\n", "---\n"} {
		if doc, err := strictyaml.Decode([]byte(text), &none); err != nil || !doc.Empty || none.Hosts != nil || none.Sub != nil {
			t.Errorf("%q: %+v, %v", text, none, err)
		}
	}
	if _, err := strictyaml.Decode([]byte("hosts: []\nsub:\n"), &some); err != nil || some.Hosts == nil || some.Sub == nil {
		t.Errorf("%+v, %v", some, err)
	}
}

func TestErrorsNameTheirPlace(t *testing.T) {
	for text, want := range map[string]string{
		"name: a\nnmae: b":              `f:2: unknown key "nmae" (known: hosts, ports, name, limit, wait, on, sub)`,
		"sub: {deep: {nam: b}}":         `f:1: unknown key "sub.deep.nam" (known: name)`,
		"[a, b]: 1":                     `f:1: unknown key ""`,
		"<<: {name: a}":                 `f:1: unknown key "<<"`,
		"name: a\n\nname: b":            `f:3: key "name" stands twice`,
		"sub:\n  name: a\n  name: b":    `f:3: key "sub.name" stands twice`,
		"proxy: {url: x}":               `f:1: key "proxy" is not supported by this version`,
		"name: &a x":                    `f:1: anchors and aliases are not supported`,
		"name:":                         `f:1: name: want one value`,
		"name: ''":                      `f:1: name: want one value`,
		"name: [a]":                     `f:1: name: want one value`,
		"name: !!binary aGF3c2Vy":       `f:1: name: want one value`,
		"hosts: a":                      `f:1: hosts: want a list`,
		"hosts:\n- a\n-":                `f:3: hosts: want one value`,
		"sub: a":                        `f:1: sub: want KEY: VALUE lines`,
		"- a":                           `f:1: want KEY: VALUE lines`,
		"on: yes":                       `f:1: on: "yes": want true or false`,
		"ports:\n- 443\n- 0x50":         `f:3: ports: "0x50": want a number, at most 65535`,
		"limit: 1_000":                  `f:1: limit: "1_000": want a number`,
		"wait: 30":                      `f:1: wait: "30": want a time with its unit, such as 30s`,
		"name: a\n---\nname: b":         `f: more than one document`,
		"hosts: [a":                     `f:1: no YAML: `,
		"name: a\x00b":                  `f: no YAML: control characters`,
		"hosts: [a]\nsub:\n  name: bad": `f:3: sub.name: "bad": I do not like it`,
		"hosts:\n- a\n- bad":            `f:3: hosts: "bad": I do not like it`,
		"sub:\n  name: absent":          `f:1: sub.deep.name: missing`,
		strings.Repeat("#", strictyaml.MaxBytes+1): `f: over 64 KiB`,
	} {
		var r raw
		doc, err := strictyaml.Decode([]byte(text), &r)
		if err == nil {
			err = check(r)
		}
		if err == nil {
			t.Errorf("%q: read as %+v", text, r)
			continue
		}
		if got := doc.Locate("f", err).Error(); !strings.HasPrefix(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%.80q:\n got %s\nwant %s", text, got, want)
		}
	}
}

// check is what a program does with what it has read.
func check(r raw) error {
	bad := errors.New("\"bad\": I do not\nlike it")
	for i, h := range r.Hosts {
		if h == "bad" {
			return strictyaml.AtItem("hosts", i, bad)
		}
	}
	switch {
	case r.Sub != nil && r.Sub.Name == "bad":
		return strictyaml.At("sub", strictyaml.At("name", bad))
	case r.Sub != nil && r.Sub.Name == "absent":
		return strictyaml.At("sub", strictyaml.At("deep", strictyaml.At("name", errors.New("missing"))))
	}
	return nil
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("hosts: [a]\nsub: {name: b}\nwait: 1s\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r raw
		doc, err := strictyaml.Decode(b, &r)
		if err != nil && strings.ContainsAny(doc.Locate("f", err).Error(), "\r\n") {
			t.Errorf("not one line: %q", err)
		}
	})
}
