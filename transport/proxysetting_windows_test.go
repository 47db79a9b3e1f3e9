package transport

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/windows/registry"
)

// What a user has set in Internet Options, and an administrator by `netsh winhttp set proxy`, is found. Both are stored by
// writing what Windows itself writes, so this runs where nobody else's settings are: under Wine.
func TestProxiesOfWindowsAreRead(t *testing.T) {
	if os.Getenv("WINEPREFIX") == "" {
		t.Skip("this changes the settings of the user")
	}
	const path = `Software\Microsoft\Windows\CurrentVersion\Internet Settings\Connections`
	const userForm, serviceForm, direct, proxied = 0x46, 0x18, 1, 3
	for _, tt := range []struct {
		root registry.Key
		name string
		form uint32
		read func() Proxies
	}{
		{registry.CURRENT_USER, "DefaultConnectionSettings", userForm, UserProxies},
		{registry.LOCAL_MACHINE, "WinHttpSettings", serviceForm, ServiceProxies},
	} {
		key, _, err := registry.CreateKey(tt.root, path, registry.ALL_ACCESS)
		if err != nil {
			t.Fatal(err)
		}
		defer key.Close()
		for flags, want := range map[uint32]string{proxied: "[http://proxy.example:3128]", direct: "[]"} {
			b := binary.LittleEndian.AppendUint32(nil, tt.form)
			b = binary.LittleEndian.AppendUint32(b, 0) // how often it was changed
			b = binary.LittleEndian.AppendUint32(b, flags)
			for _, s := range []string{"http=a:80;https=proxy.example:3128", "*.corp.example;<local>"} {
				b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
			}
			b = append(b, make([]byte, 36)...) // no script, and what is reserved
			if err := key.SetBinaryValue(tt.name, b); err != nil {
				t.Fatal(err)
			}
			ps := tt.read()
			if got := fmt.Sprint(ps.For("access.example", 443)); got != want {
				t.Errorf("%s %d: proxies %v, want %v", tt.name, flags, got, want)
			}
			if n := len(ps.For("a.corp.example", 443)) + len(ps.For("press", 443)); n != 0 {
				t.Errorf("%s: the exceptions are not read", tt.name)
			}
		}
		if err := key.DeleteValue(tt.name); err != nil {
			t.Error(err)
		}
	}
}
