package main

import "path"

// A program is one of ours, as a package.
type program struct {
	name, section string
	manual        int // the section of its man page
	summary, text string
	daemon        *daemon // nil: there is none
}

// A daemon is what the packages of a program do for it beside bringing files.
type daemon struct {
	state     string // its directory; the user is called as the program
	directory string // shell: makes the directory at installation, where something has to be put into it before the first start
	tmpfiles  string // the same, as tmpfiles.d(5)
	sysctl    string // a file of /usr/lib/sysctl.d that the package brings; empty: none
	// Only Debian has such a word. The others leave the state alone: who removes a package may be about to install it
	// again.
	erase string // shell: what `purge` does
}

var programs = []program{
	{
		name: "hawser-agent", section: "net", manual: 8, summary: "gateway of Hawser",
		text: "Makes the machines behind this gateway reachable for technicians, by\n" +
			"dialling out alone: no port is opened, and the gateway's owner decides\n" +
			"what may be reached.",
		daemon: &daemon{
			state: "/var/lib/hawser",
			erase: "	rm -rf /var/lib/hawser /run/hawser\n	rm -f /etc/hawser/agent.yaml\n" +
				"	[ ! -d /etc/hawser ] || rmdir --ignore-fail-on-non-empty /etc/hawser",
		},
	},
	{
		name: "hawser-server", section: "net", manual: 8, summary: "server infrastructure of Hawser",
		text: "Access Server and Relay Server of a Hawser infrastructure: knows who is\n" +
			"who, and joins technicians with gateways, without being able to read\n" +
			"what they say.",
		daemon: &daemon{
			state:     "/var/lib/hawser-server",
			sysctl:    "60-hawser-server.conf",
			directory: "	install -d -m 0700 -o hawser-server -g hawser-server /var/lib/hawser-server",
			tmpfiles:  "d /var/lib/hawser-server 0700 hawser-server hawser-server -\n",
			// Who loses the root loses every gateway: purge is too easily said for that.
			erase: "	if [ -e /var/lib/hawser-server/root/root.key ]; then\n" +
				"		echo 'hawser-server: not erased, because the root key is still in it: /var/lib/hawser-server' >&2\n" +
				"	else\n		rm -rf /var/lib/hawser-server\n	fi",
		},
	},
	{
		name: "hawser", section: "net", manual: 1, summary: "technician's client of Hawser",
		text: "Opens sessions to machines behind Hawser gateways, and manages these gateways.",
	},
}

// A target is a platform that Linux packages are made for.
type target struct {
	dir     string // of scripts/cross
	arch    string // nfpm's name, which it translates for each format
	openwrt string // the architecture of OpenWrt for which the agent's packages are marked; empty: there is none
	all     bool   // server and Manager too
}

// targets: OpenWrt names each kind of core; marked is the most common one that runs the program, and docs/install.md says
// what to do on the others.
var targets = []target{
	{"linux-amd64", "amd64", "x86_64", true},
	{"linux-arm64", "arm64", "aarch64_cortex-a53", true},
	{"linux-arm-7", "arm7", "arm_cortex-a7_neon-vfpv4", false},
	{"linux-arm-5", "arm5", "arm_arm926ej-s", false},
	{"linux-mipsle-softfloat", "mipsle", "mipsel_24kc", false},
}

// A pack is one package to be made.
type pack struct {
	program
	target
	format string // deb, rpm, apk or ipk
}

func (p pack) String() string { return p.name + "/" + p.dir + "/" + p.format }

// openWrt tells whether the package is for OpenWrt: ipk up to its version 24.10, apk since. The agent has no other apk.
func (p pack) openWrt() bool {
	return p.name == "hawser-agent" && (p.format == "apk" || p.format == "ipk")
}

// plan lists the packages whose names match a pattern.
func plan(pattern string) (packs []pack, err error) {
	for _, prog := range programs {
		for _, t := range targets {
			for _, format := range []string{"deb", "rpm", "apk", "ipk"} {
				p := pack{prog, t, format}
				if agent := prog.name == "hawser-agent"; !agent && (!t.all || format == "ipk") {
					continue
				}
				match, err := path.Match(pattern, p.String())
				if err != nil {
					return nil, err
				}
				if match {
					packs = append(packs, p)
				}
			}
		}
	}
	return packs, nil
}
