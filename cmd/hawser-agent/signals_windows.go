package main

import "context"

// onHangup returns at once: Windows has no such signal.
func onHangup(context.Context, func()) {}

// ignoreBrokenPipes does nothing: Windows has no such signal.
func ignoreBrokenPipes() {}
