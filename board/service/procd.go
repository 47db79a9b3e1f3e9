package service

import "strings"

// initScript renders the init script of OpenWrt. Its numbers: 3600 s, within which an exit counts as a crash; 5 s until
// the next start; 0: never give up. START and STOP are those of the links that kardianos/service makes, so that `disable`
// finds them. When the WAN is back, SIGHUP makes the agent dial at once. There is a separate command for it, because
// people use `reload` after they have changed the configuration.
func (l launch) initScript() string {
	words := []string{shellQuote(l.executable)}
	for _, arg := range l.arguments() {
		words = append(words, shellQuote(arg))
	}
	return strings.ReplaceAll(initText, "@EXEC@", strings.Join(words, " "))
}

// shellQuote quotes s, so that the shell reads it as one word without expansion.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

const initText = `#!/bin/sh /etc/rc.common
USE_PROCD=1
START=50
STOP=02
EXTRA_COMMANDS="redial"
EXTRA_HELP="	redial	Search a way to the Access Server at once"

start_service() {
	procd_open_instance
	procd_set_param command @EXEC@
	procd_set_param respawn 3600 5 0
	procd_set_param term_timeout 15
	procd_set_param stdout 1
	procd_set_param stderr 1
	procd_close_instance
}

redial() {
	procd_send_signal hawser-agent '*' HUP
}

service_triggers() {
	procd_add_interface_trigger "interface.*.up" wan /etc/init.d/hawser-agent redial
}
`
