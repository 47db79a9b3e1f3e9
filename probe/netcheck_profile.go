package probe

import (
	"slices"

	"hawser/transport"
)

// Profile is an infrastructure of somebody else whose ways can be checked
// before there is anything of ours: without enrolment, root or configuration.
type Profile struct {
	Name                string
	Access, Relays, Web []string // host names
	Ports               []transport.Port
}

// ProfileNamed returns a built-in profile. There is one, combivis: the names
// that the documentation of COMBIVIS connect asks a firewall to let through.
func ProfileNamed(name string) (Profile, bool) {
	return Profile{
		Name:   "combivis",
		Access: []string{"ccas1.keb.de", "ccas2.keb.de"},
		Relays: []string{"ubiquityrs1.asem.it", "ubiquityrs2.asem.it", "ubiquityrs3.asem.it", "ubiquityrs4.asem.it",
			"ubiquityrs5.asem.it", "ubiquityrs6.asem.it", "ubiquityrs7.asem.it"},
		Web:   []string{"combivisconnect.com", "webapi.combivisconnect.com", "help.combivisconnect.com"},
		Ports: transport.DefaultPorts(),
	}, name == "combivis"
}

func (p *Profile) hosts() []string { return slices.Concat(p.Access, p.Relays, p.Web) }
