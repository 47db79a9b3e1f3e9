//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// functionsStub has what the package needs of OpenWrt's /lib/functions.sh, with the same calls of what it is given: values
// are in variables, and a list's function is called through eval.
const functionsStub = `
config_load() { [ ! -r "/uci/$1" ] || . "/uci/$1"; }
config_get() { eval "$1=\${CONFIG_${2}_${3}-\${4-}}"; }
config_get_bool() {
	local _value
	config_get _value "$2" "$3" "$4"
	case "$_value" in
	1 | on | true | yes | enabled) _value=1 ;;
	0 | off | false | no | disabled) _value=0 ;;
	*) _value=$4 ;;
	esac
	eval "$1=\$_value"
}
config_list_foreach() {
	local section=$1 option=$2 function=$3 length value i=1
	config_get length "$section" "${option}_LENGTH"
	[ -n "$length" ] || return 0
	while [ "$i" -le "$length" ]; do
		config_get value "$section" "${option}_ITEM$i"
		eval "$function \"\$value\""
		i=$((i + 1))
	done
}
logger() { shift 4; printf '%s\n' "$1" >>/log; }
`

// rcStub is of /etc/rc.common what the init script needs; what procd is told goes to /procd, a word a line.
const rcStub = `#!/bin/sh
. /lib/functions.sh
initscript=$1 action=${2:-help}
procd_open_instance() { :; }
procd_close_instance() { :; }
procd_set_param() { printf '%s\n' "$*" >>/procd; }
procd_send_signal() { printf 'signal %s\n' "$*" >>/procd; }
procd_add_reload_trigger() { printf 'reload trigger %s\n' "$*" >>/procd; }
procd_add_interface_trigger() { printf 'interface trigger %s\n' "$*" >>/procd; }
start() { start_service && service_triggers; }
stop() { echo stop >>/procd; }
enable() { ln -sf "../init.d/${initscript##*/}" "/etc/rc.d/S${START}${initscript##*/}"; }
disable() { rm -f /etc/rc.d/S??"${initscript##*/}"; }
enabled() { [ -e "/etc/rc.d/S${START}${initscript##*/}" ]; }
. "$initscript"
case " start stop enable disable enabled $EXTRA_COMMANDS " in
*" $action "*) "$action" ;;
*) exit 1 ;;
esac
`

// An openWrt is a root with busybox's programs, as OpenWrt has them, and stubs for the parts of OpenWrt that the package
// talks to. It is what can be had of OpenWrt without a router.
type openWrt struct{ debian }

func newOpenWrt(t *testing.T) openWrt {
	t.Helper()
	w := openWrt{debian{t, t.TempDir()}}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("missing busybox: scripts/setup test installs it")
	}
	put(t, w.path("bin/busybox"), contents(t, busybox), 0o755)
	for _, dir := range []string{"usr/bin", "usr/sbin", "sbin", "etc/rc.d", "uci", "var", "dev"} {
		if err := os.MkdirAll(w.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.sh("/bin/busybox --install -s")
	put(t, w.path("dev/null"), "", 0o666)
	w.mount("/dev/null", w.path("dev/null"), "", 0x1000) // MS_BIND
	put(t, w.path("lib/functions.sh"), functionsStub, 0o644)
	put(t, w.path("etc/rc.common"), rcStub, 0o755)
	put(t, w.path("etc/openwrt_release"), "DISTRIB_ID='OpenWrt'\n", 0o644)
	return w
}

// sh runs a script in the root and returns what it printed.
func (w openWrt) sh(script string) string {
	w.t.Helper()
	return run(w.t, w.shell(script))
}

func (w openWrt) shell(script string) *exec.Cmd {
	cmd := exec.Command("/bin/busybox", "sh", "-c", script)
	cmd.Err, cmd.Dir, cmd.Env = nil, "/", []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: w.root}
	return cmd
}

// unpackAgent does what opkg does with the files of a package, and returns where its scripts are.
func (w openWrt) unpackAgent() (control string) {
	w.t.Helper()
	name := map[string]string{"amd64": "x86_64", "arm64": "aarch64_cortex-a53"}[runtime.GOARCH]
	dir := w.t.TempDir()
	unpack(w.t, made(w.t, "packages/hawser-agent_*-1_"+name+".ipk"), dir)
	run(w.t, exec.Command("cp", "-a", filepath.Join(dir, "root")+"/.", w.root))
	for _, script := range []string{"postinst", "prerm"} {
		put(w.t, w.path("opkg", script), contents(w.t, filepath.Join(dir, "control", script)), 0o755)
	}
	return "/opkg/"
}

// told is what procd was told since the last time.
func (w openWrt) told() string {
	w.t.Helper()
	text, _ := os.ReadFile(w.path("procd")) // there is none before the first word
	_ = os.Remove(w.path("procd"))
	return string(text)
}

func TestOpenWrtPackageInstallsStartsAndGoes(t *testing.T) {
	t.Attr("id", "I2")
	w := newOpenWrt(t)
	scripts := w.unpackAgent()
	if out := w.sh("hawser-agent version"); !strings.HasPrefix(out, "hawser-agent ") {
		t.Errorf("the program says %q", out)
	}
	w.sh("IPKG_INSTROOT=/image " + scripts + "postinst") // an image is being built somewhere
	w.wantGone("/etc/rc.d/S50hawser-agent")
	w.sh(scripts + "postinst")
	if told := w.told(); told != "" || !exists(w.path("etc/rc.d/S50hawser-agent")) {
		t.Errorf("started without a configuration, or not enabled: %s", told)
	}
	if log := contents(t, w.path("log")); !strings.Contains(log, "not enrolled: run hawser-agent enroll") {
		t.Errorf("log: %s", log)
	}

	put(t, w.path("etc/hawser/agent.yaml"), "access: [hawser.example.com]\n", 0o644) // as enroll writes it
	put(t, w.path("etc/hawser/device.key"), "key", 0o600)
	w.sh("/etc/rc.common /etc/init.d/hawser-agent start")
	told := w.told()
	for _, want := range []string{
		"command /usr/bin/hawser-agent run --config /etc/hawser/agent.yaml\n", "file /etc/hawser/agent.yaml\n", "respawn 3600 5 0\n",
		"stderr 1\n", "reload trigger hawser\n", "interface trigger interface.*.up wan /etc/init.d/hawser-agent redial\n",
	} {
		if !strings.Contains(told, want) {
			t.Errorf("procd is not told %q but\n%s", want, told)
		}
	}
	w.sh("/etc/rc.common /etc/init.d/hawser-agent redial")
	if told := w.told(); told != "signal hawser-agent * HUP\n" {
		t.Errorf("redial tells procd %q", told)
	}

	// An upgrade leaves alone what was disabled, and a removal leaves the identity.
	w.sh("PKG_UPGRADE=1 " + scripts + "prerm; /etc/rc.common /etc/init.d/hawser-agent disable")
	w.told()
	w.sh("PKG_UPGRADE=1 " + scripts + "postinst")
	if told := w.told(); told != "" || exists(w.path("etc/rc.d/S50hawser-agent")) {
		t.Errorf("the upgrade started what was disabled: %s", told)
	}
	w.sh(scripts + "prerm")
	if told := w.told(); told != "stop\n" || contents(t, w.path("etc/hawser/device.key")) != "key" {
		t.Errorf("the removal told procd %q", told)
	}
}
