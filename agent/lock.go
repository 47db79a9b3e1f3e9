package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"hawser/internal/wait"
)

// lockPatience is how long a start waits for the agent before it to end: one that is stopped says goodbye first.
const (
	lockPatience = 10 * time.Second
	lockRetry    = 200 * time.Millisecond
)

// errLocked: another process has the state directory.
var errLocked = errors.New("locked")

// lockState keeps a second agent out of a state directory until lock is closed or the process ends. Two of one identity
// would put each other off the server for ever, and a copy of the program that somebody tries out need not have the same
// status socket. A system that cannot lock here, or a directory that is read-only, is no reason not to serve.
//
// It is no error of the configuration, after which no service manager starts the agent again: one that somebody has started
// by hand must not keep the service off when it is gone.
func lockState(ctx context.Context, dir string) (lock io.Closer, err error) {
	began := time.Now()
	for {
		lock, err = lockDir(dir)
		switch {
		case err == nil:
			return lock, nil
		case !errors.Is(err, errLocked):
			return io.NopCloser(nil), nil
		case time.Since(began) >= lockPatience:
			return nil, fmt.Errorf("another hawser-agent runs with the state directory %s: stop it, or give this one a directory "+
				"and an identity of its own (--data)", dir)
		case !wait.Sleep(ctx, lockRetry):
			return nil, ctx.Err()
		}
	}
}
