package main

import (
	"strings"
	"testing"
	"time"

	"hawser/agent"
)

func TestTheOwnerIsToldInALine(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	known := agent.OwnerStatus{DomainKey: "5f3c12ab34cd56ef" + strings.Repeat("0", 48)}
	listed, confirmed := known, known
	listed.List, listed.Until, listed.Fault = at, at.Add(time.Hour), "revoked"
	confirmed.List = at
	ahead := known
	ahead.TimeServers = at
	for want, o := range map[string]*agent.OwnerStatus{
		"key 5f3c 12ab 34cd 56ef, no list yet":                         &known,
		"key 5f3c 12ab 34cd 56ef, newest list of 2026-11-23T10:00:00Z": &confirmed,
		"key 5f3c 12ab 34cd 56ef, newest list of 2026-11-23T10:00:00Z, the gateway's key is to be confirmed by 2026-11-23T11:00:00Z, " +
			"its statement about this gateway does not stand: revoked": &listed,
		"key 5f3c 12ab 34cd 56ef, no list yet, time servers say 2026-11-23T10:00:00Z, more than a day after the signed time: " +
			"statements are judged by that": &ahead,
		"none is known: nobody is let in": nil,
	} {
		if got := ownerText(o, ""); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if got := ownerText(nil, "it is damaged"); got != "it is damaged" {
		t.Errorf("got %s", got)
	}
}
