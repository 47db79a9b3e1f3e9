package main

import "slices"

// target is a kind of board. Boards differ in these values only; what a gateway does is the same scripts on each.
type target struct {
	name       string
	arch       string   // Debian's word
	goEnv      []string // how the agent is built for it
	deviceTree string   // file in the kernel package; empty: the board brings its own
	console    string
	wan, lan   string // network ports
	watchdog   string // empty: none
	drivers    []string
}

// lanAddress is that of the gateway on the machine LAN where the provisioning file names none.
const lanAddress = "192.168.10.1/24"

// cardDrivers are for the data partition: ext4 asks for its checksum by name, not as something that it depends on.
var cardDrivers = []string{"crc32c_generic", "ext4"}

func targets() []target {
	return []target{
		{
			name: "mcimx6ul-evk", arch: "armhf", goEnv: []string{"GOARCH=arm", "GOARM=7"},
			deviceTree: "imx6ul-14x14-evk.dtb", console: "ttymxc0", wan: "eth0", lan: "eth1", watchdog: "/dev/watchdog0",
			drivers: append([]string{"micrel", "smsc", "fec", "imx2_wdt", "gpio-mxc", "leds-gpio", "ledtrig-timer", "sdhci-esdhc-imx"}, cardDrivers...),
		},
		{
			name: "arm64-virt", arch: "arm64", goEnv: []string{"GOARCH=arm64"},
			console: "ttyAMA0", wan: "eth0", lan: "eth1",
			drivers: append([]string{"virtio_mmio", "virtio_pci", "virtio_net", "virtio_blk"}, cardDrivers...),
		},
	}
}

// findTarget returns the target of that name.
func findTarget(name string) (target, bool) {
	all := targets()
	i := slices.IndexFunc(all, func(t target) bool { return t.name == name })
	if i < 0 {
		return target{}, false
	}
	return all[i], true
}
