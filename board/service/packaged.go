package service

import "strings"

// PackagedUnit renders the systemd unit of a package. It differs from the one that Install writes in two things: a package
// can make a user, who then owns the directories that systemd makes for the service; and the unit does not start before
// the gateway is enrolled, because a package starts its service at once.
func PackagedUnit() (string, error) {
	unit, err := launch{executable: packagedProgram}.unit()
	return strings.NewReplacer(
		"StartLimitIntervalSec=0\n", "StartLimitIntervalSec=0\nConditionPathExists=/etc/hawser/agent.yaml\n",
		"UMask=0077\n", "UMask=0077\nUser="+Name+"\nGroup="+Name+"\n",
	).Replace(unit), err
}

// PackagedInit renders the init script of the OpenWrt package. It differs from the one that Install writes in that a shell
// file gives the path of the configuration, which may be rendered from UCI. Procd restarts the agent when that file has
// changed, and checks it when UCI has.
func PackagedInit(rendered string) string {
	script := launch{executable: packagedProgram, configFile: "@CONFIG@"}.initScript()
	return strings.NewReplacer(
		"	procd_open_instance\n", "	local config\n	. "+shellQuote(rendered)+"\n	config=$(hawser_config) || return 1\n	procd_open_instance\n",
		shellQuote("@CONFIG@")+"\n", "\"$config\"\n	procd_set_param file \"$config\"\n",
		"service_triggers() {\n", "service_triggers() {\n	procd_add_reload_trigger hawser\n",
	).Replace(script)
}

const packagedProgram = "/usr/bin/" + Name
