package service

import "strings"

// PackagedUnit renders the systemd unit that a package owns. It is the one that Install writes, but for what only a package
// can bring: a user of its own, who is given what systemd makes for the service; and it is not started at all while nobody
// has enrolled, since a package starts its service at once.
func PackagedUnit() (string, error) {
	unit, err := launch{executable: packagedProgram}.unit()
	return strings.NewReplacer(
		"StartLimitIntervalSec=0\n", "StartLimitIntervalSec=0\nConditionPathExists=/etc/hawser/agent.yaml\n",
		"UMask=0077\n", "UMask=0077\nUser="+Name+"\nGroup="+Name+"\n",
	).Replace(unit), err
}

// PackagedInit renders the init script of the OpenWrt package. It is the one that Install writes, but that it asks the
// shell file rendered for the path of the configuration, which may come out of UCI: procd starts the agent anew when that
// file has changed, and looks when UCI has.
func PackagedInit(rendered string) string {
	script := launch{executable: packagedProgram, configFile: "@CONFIG@"}.initScript()
	return strings.NewReplacer(
		"	procd_open_instance\n", "	local config\n	. "+shellQuote(rendered)+"\n	config=$(hawser_config) || return 1\n	procd_open_instance\n",
		shellQuote("@CONFIG@")+"\n", "\"$config\"\n	procd_set_param file \"$config\"\n",
		"service_triggers() {\n", "service_triggers() {\n	procd_add_reload_trigger hawser\n",
	).Replace(script)
}

const packagedProgram = "/usr/bin/" + Name
