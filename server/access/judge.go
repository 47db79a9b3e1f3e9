package access

import (
	"crypto/subtle"
	"time"

	"hawser/identity"
	"hawser/server/store"
	"hawser/transport"
	"hawser/transport/api"
)

// codeUse says what is done for somebody who sends a code.
type codeUse int

const (
	codeRefused  codeUse = iota // bad-code
	codeReused                  // bad-code, and an audit record: somebody has copied the code
	codeFresh                   // the code is good and unused
	codeRepeated                // the answer may have been lost: give the same again
)

// judgeEnroll decides about an enrollment with a code whose record led to m (access §2). It is pure: the caller commits
// what it decides in the transaction that has read m. A gateway of a batch may be stored for weeks before its answer is
// missed: its key gets the same again as long as the code lasts.
func judgeEnroll(m store.Member, shown credential, batch bool, spki identity.SPKI, now time.Time) codeUse {
	switch {
	case m.Code != shown.lookup || subtle.ConstantTimeCompare(shown.hash[:], m.CodeHash[:]) != 1:
		return codeRefused // a newer code has replaced it
	case !m.Revoked.IsZero():
		return codeRefused
	// Only an unused code expires: a used one still has to recognize who used it.
	case !m.IsEnrolled() && now.After(m.CodeExpires):
		return codeRefused
	case !m.IsEnrolled():
		return codeFresh
	case m.SPKI != spki:
		return codeReused
	case now.Sub(m.Enrolled) > repeatTime && (!batch || now.After(m.CodeExpires)):
		return codeRefused
	}
	return codeRepeated
}

// judgeLogin decides about a login with the code of c (access §6).
func judgeLogin(c store.Code, spki identity.SPKI, now time.Time) codeUse {
	switch {
	case c.Used.IsZero() && now.After(c.Expires):
		return codeRefused
	case c.Used.IsZero():
		return codeFresh
	case c.Used != spki:
		return codeReused
	case now.Sub(c.UsedAt) > repeatTime:
		return codeRefused
	}
	return codeRepeated
}

// judgeMember decides whether the registry still knows a device or relay by the key that it has proven. The empty
// reason is yes.
func judgeMember(m store.Member, spki identity.SPKI) transport.Reason {
	switch {
	case !m.Revoked.IsZero():
		return transport.Revoked
	case !m.IsEnrolled():
		return transport.NotEnrolled
	case m.SPKI != spki:
		return transport.WrongKey
	}
	return ""
}

// judgeUser decides the same about a user. A key may renew while it was seen within seenLife; a certificate from the last
// renewal stays valid to its end.
func judgeUser(u store.User, k *store.UserKey, renewing bool, now time.Time) transport.Reason {
	switch {
	case !u.Revoked.IsZero():
		return transport.Revoked
	case k == nil:
		return api.NotLoggedIn
	case renewing && now.Sub(seen(*k)) > seenLife:
		return api.NotLoggedIn
	}
	return ""
}

// seen is when a key was certified last: a Manager that is used renews at two thirds of the certificate's life.
func seen(k store.UserKey) time.Time {
	if at := k.NotAfter.Add(-userLife); at.After(k.Login) {
		return at
	}
	return k.Login
}

// maxUserKeys is on how many machines a user can be logged in at the same time.
const maxUserKeys = 16

// keysBeside returns which keys of a user, sorted by login, are deleted at a login or renewal of key: those that can no
// longer be used or renewed, and the oldest ones beyond maxUserKeys. Without that the list would grow with every
// machine that is thrown away.
func keysBeside(keys []store.UserKey, key store.UserKey, now time.Time) (gone []store.UserKey) {
	var stay []store.UserKey
	for _, k := range keys {
		switch {
		case k.SPKI == key.SPKI:
		case now.Sub(seen(k)) > seenLife && now.After(k.NotAfter):
			gone = append(gone, k)
		default:
			stay = append(stay, k)
		}
	}
	return append(gone, stay[:max(len(stay)+1-maxUserKeys, 0)]...)
}
