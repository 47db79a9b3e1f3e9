//go:build !windows

package board

func programData() string { return "" }
