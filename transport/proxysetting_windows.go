package transport

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// winHTTP names a function of winhttp.dll, which reads policies and the registry alike.
func winHTTP(name string) *windows.LazyProc {
	return windows.NewLazySystemDLL("winhttp.dll").NewProc(name)
}

// userSettings are those that this process's user has made (Internet Options). Without
// any, and after an error, there are none.
func userSettings() (s settings) {
	var c struct { // WINHTTP_CURRENT_USER_IE_PROXY_CONFIG
		autoDetect            int32
		script, proxy, bypass *uint16
	}
	get := winHTTP("WinHttpGetIEProxyConfigForCurrentUser")
	if get.Find() != nil {
		return s
	}
	if ok, _, _ := get.Call(uintptr(unsafe.Pointer(&c))); ok == 0 {
		return s
	}
	return settings{server: take(c.proxy), bypass: take(c.bypass), script: take(c.script)}
}

// serviceSettings are those of `netsh winhttp set proxy`.
func serviceSettings() (s settings) {
	const named = 3 // WINHTTP_ACCESS_TYPE_NAMED_PROXY
	var c struct {  // WINHTTP_PROXY_INFO
		access        uint32
		proxy, bypass *uint16
	}
	get := winHTTP("WinHttpGetDefaultProxyConfiguration")
	if get.Find() != nil {
		return s
	}
	if ok, _, _ := get.Call(uintptr(unsafe.Pointer(&c))); ok == 0 {
		return s
	}
	server, bypass := take(c.proxy), take(c.bypass)
	if c.access != named {
		return s
	}
	return settings{server: server, bypass: bypass}
}

// take returns the text behind p, which the system has allocated, and frees it.
func take(p *uint16) string {
	if p == nil {
		return ""
	}
	text := windows.UTF16PtrToString(p)
	windows.NewLazySystemDLL("kernel32.dll").NewProc("GlobalFree").Call(uintptr(unsafe.Pointer(p)))
	return text
}
