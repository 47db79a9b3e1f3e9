package board

// descriptors has no limit on Windows.
func descriptors() int { return 0 }
