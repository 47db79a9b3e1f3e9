package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metrics"
)

// Each commit and each reading is timed once, an error of the database is counted by what an operator has to do, and what
// a function or a client says is none of it.
func TestCountersTellTheStoresErrorsFromThoseOfItsUsers(t *testing.T) {
	db, err := Memory()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var fault error
	set := metrics.NewSet()
	s, err := Open(t.Context(), Options{Database: db, Node: "a1", Metrics: set, Fault: func() error { return fault }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := counts(set)
	note := func(tx *Tx) error { tx.Note("node", "a1"); return nil }
	mine := errors.New("mine")
	view := func(ctx context.Context, f func(*Tx) error) error { return s.View(ctx, f) }
	for _, c := range []struct {
		what string
		do   func() error
		want error
	}{
		{"write", func() error { return s.Update(t.Context(), note) }, nil},
		{"write what fails", func() error { return s.Update(t.Context(), func(*Tx) error { return mine }) }, mine},
		{"read", func() error { return view(t.Context(), func(*Tx) error { return nil }) }, nil},
		{"read what is not there", func() error {
			return view(t.Context(), func(tx *Tx) error { return tx.Get(&User{Domain: "d", Name: "n"}) })
		}, ErrNotFound},
		{"read and hang up", func() error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return view(ctx, func(*Tx) error { return nil })
		}, ErrAway},
		{"read while it is away", func() error {
			fault = fmt.Errorf("test %w", ErrAway)
			return view(t.Context(), func(*Tx) error { return nil })
		}, ErrAway},
		{"write while it is full", func() error {
			fault = fmt.Errorf("test %w", ErrFull)
			return s.Update(t.Context(), note)
		}, ErrFull},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Fatalf("%s: %v", c.what, err)
		}
	}
	after := counts(set)
	for name, want := range map[string]float64{
		"hawser_store_commit_duration_seconds_count":    3,
		"hawser_store_read_duration_seconds_count":      4,
		`hawser_store_failures_total{kind="away"}`:      1,
		`hawser_store_failures_total{kind="full"}`:      1,
		`hawser_store_failures_total{kind="damaged"}`:   0,
		"hawser_store_granting":                         0, // it is 1 all the time
		"hawser_store_damages":                          0,
		"hawser_store_scrub_finished_timestamp_seconds": 0,
		"hawser_store_dropped_total":                    0,
	} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s: %v more, want %v", name, got, want)
		}
	}
	if after["hawser_store_granting"] != 1 {
		t.Error("a good store does not grant")
	}
}

// counts reads what a set exports.
func counts(set *metrics.Set) map[string]float64 {
	var text strings.Builder
	set.WritePrometheus(&text)
	values := map[string]float64{}
	for line := range strings.Lines(text.String()) {
		var value float64
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		fmt.Sscan(rest, &value)
		values[name] = value
	}
	return values
}
