package access

import (
	"crypto/subtle"
	"slices"
	"time"

	"hawser/identity"
	"hawser/transport"
)

// A verdict on somebody who shows a code.
type verdict int

const (
	verdictRefuse verdict = iota // bad-code
	verdictAlarm                 // bad-code, and somebody should look at it
	verdictIssue                 // the code is good and unused
	verdictAgain                 // the answer may have been lost: give the same again
)

// judgeEnrol decides on an enrolment with a code whose record led to m
// (access §2). It is pure; what it decides is committed by compare-and-set.
func judgeEnrol(m memberRecord, code identity.Code, spki identity.SPKI, now time.Time) verdict {
	sum := code.Hash()
	switch {
	case m.Code.Lookup != code.LookupID() || subtle.ConstantTimeCompare(sum[:], m.Code.Hash[:]) != 1:
		return verdictRefuse // another code has taken its place
	case m.Revoked != nil:
		return verdictRefuse
	case m.Enrolled == nil && now.After(m.Code.Expires):
		return verdictRefuse
	case m.Enrolled == nil:
		return verdictIssue
	case m.Enrolled.SPKI != spki:
		return verdictAlarm
	case now.Sub(m.Enrolled.At) > repeatTime:
		return verdictRefuse
	}
	return verdictAgain
}

// judgeLogin decides on a login with the code of c (access §6).
func judgeLogin(c codeRecord, spki identity.SPKI, now time.Time) verdict {
	switch {
	case c.Used == nil && now.After(c.Expires):
		return verdictRefuse
	case c.Used == nil:
		return verdictIssue
	case c.Used.SPKI != spki:
		return verdictAlarm
	case now.Sub(c.Used.At) > repeatTime:
		return verdictRefuse
	}
	return verdictAgain
}

// judgeMember decides whether the registry still knows a device or relay by
// the key that it has proven. The empty reason is yes.
func judgeMember(m memberRecord, spki identity.SPKI) transport.Reason {
	switch {
	case m.Revoked != nil:
		return transport.Revoked
	case m.Enrolled == nil:
		return transport.NotEnrolled
	case m.Enrolled.SPKI != spki:
		return transport.WrongKey
	}
	return ""
}

// judgeUser decides the same about a user. A key may renew for loginLife after
// its login; a certificate that is still valid is not judged by that again.
func judgeUser(u userRecord, spki identity.SPKI, renewing bool, now time.Time) transport.Reason {
	i := slices.IndexFunc(u.Keys, func(k userKey) bool { return k.SPKI == spki })
	switch {
	case u.Revoked != nil:
		return transport.Revoked
	case i < 0:
		return codeNotLoggedIn
	case renewing && now.Sub(u.Keys[i].Login) > loginLife:
		return codeNotLoggedIn
	}
	return ""
}

// maxUserKeys is on how many machines a user can be logged in.
const maxUserKeys = 16

// withKey returns the keys of a user after a login or renewal of key. Logins
// that are over are dropped, and beyond maxUserKeys the oldest.
func withKey(keys []userKey, key userKey, now time.Time) []userKey {
	keys = slices.DeleteFunc(slices.Clone(keys), func(k userKey) bool {
		return k.SPKI == key.SPKI || now.Sub(k.Login) > loginLife && now.After(k.NotAfter)
	})
	keys = append(keys, key)
	slices.SortStableFunc(keys, func(a, b userKey) int { return a.Login.Compare(b.Login) })
	return keys[max(len(keys)-maxUserKeys, 0):]
}
