package main

// linkUpSignal never tells: Windows has no such signal.
func linkUpSignal() (<-chan struct{}, func()) { return nil, func() {} }
