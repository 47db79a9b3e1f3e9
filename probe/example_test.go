package probe_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"hawser/probe"
)

// Two of three time servers agree, and one is an hour ahead. The majority is believed; the clock that read the answers
// says 1970, and that does not matter.
func ExampleCombine() {
	read := time.Unix(40, 0) // by the local clock, at the moment of the answers
	right := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	sample := func(source string, at time.Time) probe.Sample {
		return probe.Sample{Source: source, Received: read, At: at, RTT: 20 * time.Millisecond,
			RootDistance: 30 * time.Millisecond, Stratum: 2}
	}
	samples := []probe.Sample{sample("ntp1.example.com", right), sample("ntp2.example.com", right.Add(4*time.Millisecond)),
		sample("ntp3.example.com", right.Add(time.Hour))}

	floor, ceiling := right.AddDate(0, -1, 0), right.AddDate(15, 0, 0)
	v := probe.Combine(samples, 3, floor, ceiling)
	fmt.Println(v.Plausible, v.Agreed)
	fmt.Println(v.At(read.Add(time.Minute)).UTC().Format(time.RFC3339))
	for _, r := range v.Rejected {
		fmt.Println(r.Source, r.Reason)
	}
	// Output:
	// true [ntp1.example.com ntp2.example.com]
	// 2026-03-01T08:01:00Z
	// ntp3.example.com outvoted
}

// An address is its own answer, and the hosts file counts before DNS.
func ExampleResolver_Resolve() {
	dir, err := os.MkdirTemp("", "hosts")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	hosts := filepath.Join(dir, "hosts")
	if err := os.WriteFile(hosts, []byte("192.0.2.10 hawser.example.com\n"), 0o600); err != nil {
		panic(err)
	}

	r := probe.Resolver{HostsFile: hosts}
	fmt.Println(r.Resolve(context.Background(), "hawser.example.com"))
	fmt.Println(r.Resolve(context.Background(), "2001:db8::1"))
	// Output:
	// [192.0.2.10] <nil>
	// [2001:db8::1] <nil>
}
