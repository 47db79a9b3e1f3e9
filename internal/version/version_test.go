package version

import (
	"runtime/debug"
	"testing"
	"time"
)

func TestStampInAnyOrder(t *testing.T) {
	set := func(k, v string) debug.BuildSetting { return debug.BuildSetting{Key: k, Value: v} }
	for name, tt := range map[string]struct {
		settings      []debug.BuildSetting
		commit, built string
	}{
		"none":    {nil, "", ""},
		"clean":   {[]debug.BuildSetting{set("vcs.revision", "abc"), set("vcs.time", "2026-11-01T00:00:00Z"), set("vcs.modified", "false")}, "abc", "2026-11-01T00:00:00Z"},
		"changed": {[]debug.BuildSetting{set("vcs.revision", "abc"), set("vcs.modified", "true")}, "abc+changes", ""},
		"turned":  {[]debug.BuildSetting{set("vcs.modified", "true"), set("vcs.revision", "abc")}, "abc+changes", ""},
	} {
		var v Info
		if v.stamp(tt.settings); v.Commit != tt.commit || v.Built != tt.built {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestBuildTimeHasADefault(t *testing.T) {
	if got := (Info{Built: "2027-03-01T10:00:00Z"}).BuildTime(); !got.Equal(time.Date(2027, 3, 1, 10, 0, 0, 0, time.UTC)) {
		t.Errorf("stamped: %v", got)
	}
	for _, s := range []string{"", "unknown", "0001"} {
		if got := (Info{Built: s}).BuildTime(); got.Year() < 2026 {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestOneLine(t *testing.T) {
	v := Info{Program: "hawser", Version: "v1", Go: "go1.26", Platform: "linux/arm"}
	if got := v.String(); got != "hawser v1 (go1.26, linux/arm)" {
		t.Error(got)
	}
	v.Commit = "abc"
	if got := v.String(); got != "hawser v1 abc (go1.26, linux/arm)" {
		t.Error(got)
	}
}
