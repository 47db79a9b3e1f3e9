//go:build !windows

package transport

// Other systems have their settings in the environment.
func userSettings() settings    { return settings{} }
func serviceSettings() settings { return settings{} }
