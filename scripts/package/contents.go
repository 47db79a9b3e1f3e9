package main

import (
	"embed"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"hawser/board/service"
)

//go:embed files
var files embed.FS

// A content is a file of a package, in nfpm's words.
type content struct {
	Source      string   `json:"src,omitempty"`
	Destination string   `json:"dst"`
	Type        string   `json:"type,omitempty"`
	Info        fileInfo `json:"file_info"`
}

type fileInfo struct {
	Mode  int       `json:"mode"`
	Owner string    `json:"owner"`
	Group string    `json:"group"`
	Time  time.Time `json:"mtime"`
}

// uciScript is where the OpenWrt package has what makes the configuration of UCI's.
const uciScript = "/usr/lib/hawser/uci.sh"

// A packing collects what goes into one package.
type packing struct {
	*release
	pack
	contents []content
	// A package is some thirty calls in a row: an error that each of them returned would hide what is in it.
	err error // the first one; what comes after it does nothing
}

// add takes a file that is there.
func (p *packing) add(source, destination string, mode int) {
	p.contents = append(p.contents, content{Source: source, Destination: destination, Info: fileInfo{mode, "root", "root", p.when}})
}

// addText takes a file that is not there yet.
func (p *packing) addText(text, destination string, mode int) {
	p.add(p.write(destination, []byte(text)), destination, mode)
}

// addFile takes one of our files, with its variables replaced.
func (p *packing) addFile(name, destination string, mode int) {
	p.addText(p.file(name), destination, mode)
}

// file reads one of our files and replaces what it has of @NAME@, @STATE@ and so on.
func (p *packing) file(name string) string {
	text, err := files.ReadFile("files/" + name)
	p.fail(err)
	words := []string{"@NAME@", p.name, "@SUMMARY@", p.summary}
	if s := p.daemon; s != nil {
		directory := s.directory
		if p.format == "rpm" {
			directory = ""
			if s.tmpfiles != "" {
				directory = "systemd-tmpfiles --create " + p.name + ".conf >/dev/null 2>&1 || :\n"
			}
		}
		sysctl := ""
		if s.sysctl != "" {
			sysctl = "sysctl -q -p " + sysctlDir + s.sysctl + " >/dev/null 2>&1 || true" // a container may not
		}
		words = append(words, "@STATE@", s.state, "@DIRECTORY@\n", line(directory), "@ERASE@\n", line(s.erase), "@SYSCTL@\n", line(sysctl))
	}
	return strings.NewReplacer(words...).Replace(string(text))
}

// line ends a text that is not empty.
func line(text string) string {
	if text == "" || strings.HasSuffix(text, "\n") {
		return text
	}
	return text + "\n"
}

func (p *packing) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

// collect gathers the package's files.
func (p *packing) collect() error {
	p.add(filepath.Join(p.bin, p.dir, p.name), "/usr/bin/"+p.name, 0o755)
	switch {
	case p.openWrt():
		p.collectOpenWrt()
	case p.format == "apk":
		if p.daemon != nil {
			p.addFile("alpine/hawser-server.initd", "/etc/init.d/hawser-server", 0o755)
			p.collectSysctl()
		}
		p.collectShells("/usr/share/zsh/site-functions/")
	case p.format == "rpm":
		p.collectSystemd()
		p.collectShells("/usr/share/zsh/site-functions/")
		p.collectDocs("/usr/share/licenses/" + p.name)
	default:
		p.collectSystemd()
		p.collectShells("/usr/share/zsh/vendor-completions/")
		p.collectDocs("/usr/share/doc/" + p.name)
		p.collectDebian()
	}
	return p.err
}

// collectOpenWrt leaves out completions, man page and licences: on a router they would take flash that the agent needs.
// The notices lie beside the packages (makeSBOMs). The configuration says whom the owner lets in, and to what: 0600.
func (p *packing) collectOpenWrt() {
	p.addText(service.PackagedInit(uciScript), "/etc/init.d/hawser-agent", 0o755)
	p.addFile("openwrt/uci.sh", uciScript, 0o644)
	p.addFile("openwrt/keep", "/lib/upgrade/keep.d/hawser-agent", 0o644)
	p.addFile("openwrt/hawser.config", "/etc/config/hawser", 0o600)
	p.contents[len(p.contents)-1].Type = "config|noreplace"
}

// collectSystemd adds the unit, and the user for systems that make it of such files alone.
func (p *packing) collectSystemd() {
	// The technician's program has no service and needs no user.
	if p.daemon == nil {
		return
	}
	unit := ""
	if p.name == service.Name {
		var err error
		unit, err = service.PackagedUnit()
		p.fail(err)
		// Made by enroll under root's umask it might be closed to the service.
		p.add("", "/etc/hawser", 0o755)
		p.contents[len(p.contents)-1].Type = "dir"
	} else {
		unit = p.file(p.name + ".service")
	}
	p.addText(unit, "/usr/lib/systemd/system/"+p.name+".service", 0o644)
	p.addFile("sysusers.conf", "/usr/lib/sysusers.d/"+p.name+".conf", 0o644)
	if p.daemon.tmpfiles != "" {
		p.addText(p.daemon.tmpfiles, "/usr/lib/tmpfiles.d/"+p.name+".conf", 0o644)
	}
	p.collectSysctl()
}

// sysctlDir has what the kernel is set to when the machine starts.
const sysctlDir = "/usr/lib/sysctl.d/"

func (p *packing) collectSysctl() {
	if p.daemon.sysctl != "" {
		p.addFile("sysctl.conf", sysctlDir+p.daemon.sysctl, 0o644)
	}
}

// collectShells adds what shells complete with, and the man page: both say what the program says. The program of the
// machine that packs is asked, since those of other platforms do not run here; what they say is the same.
func (p *packing) collectShells(zsh string) {
	native := filepath.Join(p.bin, "linux-"+runtime.GOARCH, p.name)
	for shell, path := range map[string]string{
		"bash": "/usr/share/bash-completion/completions/" + p.name,
		"zsh":  zsh + "_" + p.name,
		"fish": "/usr/share/fish/vendor_completions.d/" + p.name + ".fish",
	} {
		text, err := output(native, "completion", shell)
		p.fail(err)
		p.addText(text, path, 0o644)
	}
	page, err := manualPage(native, p.program, p.when, p.version)
	p.fail(err)
	p.addText(zip(page), fmt.Sprintf("/usr/share/man/man%d/%s.%d.gz", p.manual, p.name, p.manual), 0o644)
}

// collectDocs adds what the licences ask for, ours and those of the libraries, and examples.
func (p *packing) collectDocs(licences string) {
	notices, err := p.notices(filepath.Join(p.bin, p.dir, p.name))
	p.fail(err)
	p.addText(notices, licences+"/third-party.txt", 0o644)
	p.addFile("doc/copyright", licences+"/copyright", 0o644)
	if p.name == service.Name {
		for _, name := range []string{"agent.yaml", "clock.conf", "devices.conf"} {
			p.addFile("doc/"+name, "/usr/share/doc/"+p.name+"/examples/"+name, 0o644)
		}
	}
}

func (p *packing) collectDebian() {
	entry := fmt.Sprintf("%s (%s-1) unstable; urgency=medium\n\n  * What changed is in CHANGELOG.md of the release.\n\n -- %s  %s\n",
		p.name, p.version, p.maintainer, p.when.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	p.addText(zip(entry), "/usr/share/doc/"+p.name+"/changelog.Debian.gz", 0o644)
	p.addFile("doc/lintian-overrides", "/usr/share/lintian/overrides/"+p.name, 0o644)
}
