# shellcheck shell=sh
# shellcheck disable=SC3043 # local: every shell of OpenWrt has it
# Sourced by /etc/init.d/hawser-agent, in which /lib/functions.sh is at hand: makes the agent's configuration of UCI's.
#
# What stands in UCI was typed by somebody, or by a program that asked somebody. Each value becomes one single-quoted
# scalar of YAML, in which nothing but the quote itself means anything; what cannot stand in one is refused.

hawser_etc=/etc/hawser
hawser_rendered=/var/etc/hawser/agent.yaml

# hawser_config prints the path of the configuration that counts, or says in the log why there is none.
hawser_config() {
	local yaml='' bad=''
	config_load hawser
	hawser_list access
	if [ -z "$yaml" ] && [ -z "$bad" ]; then
		[ ! -r "$hawser_etc/agent.yaml" ] || { echo "$hawser_etc/agent.yaml" && return; }
		hawser_say 'not enrolled: run hawser-agent enroll'
		return 1
	fi
	hawser_list ports hawser_number
	hawser_option root
	hawser_nested dns servers dns_servers
	hawser_time
	hawser_allow
	hawser_list proxy
	hawser_budget
	hawser_limits
	hawser_bool private_infrastructure
	hawser_option log
	[ -z "$bad" ] || { hawser_say "/etc/config/hawser: $bad" && return 1; }
	hawser_write || { hawser_say "cannot write $hawser_rendered" && return 1; }
	echo "$hawser_rendered"
}

hawser_write() {
	(
		umask 077
		mkdir -p "${hawser_rendered%/*}" && printf '%s' "$yaml" >"$hawser_rendered.new" && mv "$hawser_rendered.new" "$hawser_rendered"
	)
}

hawser_say() { logger -t hawser-agent -p daemon.err "$1"; }

# hawser_line KEY TEXT adds a line; TEXT is YAML.
hawser_line() {
	yaml="$yaml$1: $2
"
}

# hawser_text VALUE, hawser_number VALUE: set scalar to what VALUE is in YAML, or bad to what is wrong with it.
hawser_text() {
	if [ "$(printf '%s' "$1" | tr -d '\000-\037\177')" = "$1" ]; then
		scalar="'$(printf '%s' "$1" | sed "s/'/''/g")'"
	else
		bad="$option: a value holds a control character"
	fi
}

hawser_number() {
	case $1 in
	'' | *[!0-9]* | ??????*) bad="$option: a value is no port" ;;
	*) scalar=$1 ;;
	esac
}

# hawser_items OPTION KIND sets items to the list in YAML, empty when there is none.
hawser_items() {
	local option=$1 kind=$2 scalar=''
	items=''
	config_list_foreach agent "$option" hawser_item
}

hawser_item() {
	"$kind" "$1"
	items="${items:+$items, }$scalar"
}

# hawser_list OPTION [KIND]
hawser_list() {
	local items
	hawser_items "$1" "${2:-hawser_text}"
	[ -z "$items" ] || hawser_line "$1" "[$items]"
}

# hawser_nested KEY INNER OPTION
hawser_nested() {
	local items
	hawser_items "$3" hawser_text
	[ -z "$items" ] || hawser_line "$1" "{$2: [$items]}"
}

hawser_option() {
	local option=$1 value='' scalar=''
	config_get value agent "$option"
	[ -n "$value" ] || return 0
	hawser_text "$value"
	hawser_line "$option" "$scalar"
}

hawser_bool() {
	local value=''
	config_get_bool value agent "$1" 0
	[ "$value" != 1 ] || hawser_line "$1" true
}

hawser_time() {
	local option=set_system_clock items value='' scalar=''
	config_get value agent set_system_clock
	hawser_text "${value:-never}"
	hawser_items time_servers hawser_text
	hawser_line time "{servers: [$items], set_system_clock: $scalar}"
}

hawser_budget() {
	local option=budget_mb_per_month value='' scalar=''
	config_get value agent "$option"
	[ -n "$value" ] || return 0
	hawser_text "$value"
	hawser_line heartbeat "{$option: $scalar}"
}

# The keys of limits are options of their own: UCI has no list within one.
hawser_limits() {
	local key option value scalar items inner=''
	for key in streams per_target memory_mb; do
		option=limits_$key value='' scalar=''
		config_get value agent "$option"
		[ -n "$value" ] || continue
		hawser_text "$value"
		inner="${inner:+$inner, }$key: $scalar"
	done
	hawser_items limits_targets hawser_text
	[ -z "$items" ] || inner="${inner:+$inner, }targets: [$items]"
	[ -z "$inner" ] || hawser_line limits "{$inner}"
}

# No list is the default policy, an empty one lets nobody in, and UCI cannot say the second.
hawser_allow() {
	local value=''
	config_get_bool value agent allow_nothing 0
	if [ "$value" = 1 ]; then
		hawser_line allow '[]'
	else
		hawser_list allow
	fi
}
