package main

import (
	"strings"
	"testing"
)

func TestParseIDs(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       string // ids joined by a space, or the error after "!"
	}{
		{"rows in order", "| id | shows |\n|---|---|\n| K5 | b |\n| A1-bytes | a |\n", "K5 A1-bytes"},
		{"ids without a number", "| S-kill | a |\n| W-mtu | b |\n| S | c |\n| OK | d |\n", "S-kill W-mtu"},
		{"prose is ignored", "# Tests\nA1-bytes is an id.\n| A1-size | small |", "A1-size"},
		{"empty file", "", "!no id is listed"},
		{"twice", "| K5 | a |\n| K5 | b |\n", "!id K5: listed twice"},
		{"says nothing", "| K5 | |\n", "!id K5: nothing says what it shows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ids, err := parseIDs(tt.text)
			got := strings.Join(ids, " ")
			if err != nil {
				got = "!" + err.Error()
			}
			if got != tt.want {
				t.Errorf("parseIDs = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCountWantsWhatAndNumber(t *testing.T) {
	tab := table{counts: map[string]int64{}}
	for _, bad := range []string{"", "cuts", "cuts=", "cuts=many", "cuts 5"} {
		if err := tab.count("N8", bad); err == nil {
			t.Errorf("count(%q) was accepted", bad)
		}
	}
	for range 2 {
		if err := tab.count("N8", "cuts made=21"); err != nil {
			t.Fatal(err)
		}
	}
	if got := tab.counts["N8\tcuts made"]; got != 42 {
		t.Errorf("two runs counted %d, want their sum 42", got)
	}
}
