module hawser

go 1.26.0

require (
	github.com/google/go-cmp v0.7.0
	github.com/kardianos/service v1.3.0
	golang.org/x/sys v0.49.0
)
