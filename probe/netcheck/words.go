package netcheck

import "fmt"

// A Language is one of those that the sheet for the site's IT can be written in.
type Language string

// The languages. Report and verdict are English; the sheet is for somebody who may read another one.
const (
	English Language = "en"
	German  Language = "de"
)

// Languages lists them.
func Languages() []Language { return []Language{English, German} }

// A phrase is one text of the sheet or the verdict. Each language has a file with all of them. Numbers and not keys of
// a map: a phrase that one language lacks is an empty place, which a test finds.
type phrase int

// The verdict, and what it is made of.
const (
	vOpen phrase = iota
	vSmall
	vSmallUnknown
	vFirstSegment
	vThroughProxy
	vProxyAuth
	vProxyRefused
	vProxyDead
	vProxyNote
	vUplinks
	vRelayShut
	vNoRelay
	vUnproven
	vSeveralRoots
	vNothing
	vCut
	vBadName
	vNoResolver
	vNoAddress
	vBadAddress
	vNoAnswer
	vDNSFails
	vNobodyAsked
	vOutOfBounds
	vNoRoute
	vStopped
	vShut
	vIntercepted
	vPortal
	vForeign
	vTLSStopped
	vWrongRoot
	vNotAccess
	vUnverified
	vDates
	vDatesNoSource
	vDatesNoAnswer
	vDatesClock
	vDatesServer

	wPlace
	wThrough
	wAnd
	wUnnamed
	wDays

	// Titles and facts of the sheet.
	sRequest
	sGood
	sFromPC
	sProfile
	sFacts
	sFact
	sValue
	sMeasured
	sMachine
	sContact
	sDevice
	sGateway
	sReach
	sReachLAN
	sReachNothing
	sMAC
	sAddress
	sMeasuredBy
	sNotKnown
	sNotEnrolled
	sNotReadable
	sNoContact
	sOwnClock
	sGoodClock

	// Parts of the sheet.
	sResult
	sMissing
	sNothingMissing
	sRules
	sInbound
	sInboundText
	sAbout
	sAboutWhat
	sAboutPC
	sAboutVolume
	sAboutWho
	sAboutReach
	sAboutLog
	sAboutCut
	sTest
	sTestHow
	sTestGood
	sTestBrowser
	sInspection
	sExempt
	sExemptProfile
	sNoInspection
	sDNS
	sDNSAnswers
	sDNSAsked
	sDNSOdd
	sDNSNone
	sNTP
	sNTPNone
	sNTPRow
	sNTPKiss
	sNTPBad
	sNTPWorthless
	sNTPAll
	sClockNone
	sClockMajority
	sClockGood
	sDistance

	// Rules.
	sOnePort
	sRelaysToo
	sDirect
	sProxied
	sByName
	sAllow
	sAllowIfUp
	sExemptRule
	sThisMachine
	rDirection
	rProtocol
	rDestination
	rAddress
	rPort
	rPurpose
	rNeed
	rMeasured
	rOut
	rAccess
	rTheirAccess
	rRelay
	rTheirRelay
	rProxy
	rWeb
	rTime
	rNeeded
	rAlternative
	rOptional
	rOpen
	rOpenBut
	rClosed
	rClosedBy
	rNotMeasured
	rNotMeasuredFor

	// What is odd about a resolver.
	oHijack
	oPrivate
	oLocal
	oCase
	oEDNS
	oUDP
	oTCP

	phrases // how many there are
)

// lexicon is all phrases in one language. A phrase may be a format; then every language has the same arguments, in the
// order that suits it.
type lexicon [phrases]string

func lexiconOf(l Language) *lexicon {
	if l == German {
		return german()
	}
	return english()
}

// say fills a phrase in. Without arguments the text is no format: a percent sign in it stays one.
func (l *lexicon) say(p phrase, args ...any) string {
	if len(args) == 0 {
		return l[p]
	}
	return fmt.Sprintf(l[p], args...)
}
