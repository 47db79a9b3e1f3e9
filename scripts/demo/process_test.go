package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patienceOfTest bounds every wait; what waits so long has failed.
const patienceOfTest = 2 * time.Minute

// TestMain plays a program when it is called as one: "play CODE LINE" prints LINE on both streams, and ends with CODE
// after SIGTERM; "fail" ends at once; "deaf" ignores SIGTERM.
func TestMain(m *testing.M) {
	if len(os.Args) < 3 || os.Args[1] != "play" {
		os.Exit(m.Run())
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	fmt.Fprintln(os.Stderr, "playing", os.Args[2])
	fmt.Println("ready now")
	switch os.Args[2] {
	case "good":
		<-told
	case "bad":
		<-told
		os.Exit(3)
	case "fail":
		os.Exit(5)
	case "deaf":
		select {}
	}
}

func play(t *testing.T, what string) *program {
	t.Helper()
	p, err := start(filepath.Join(t.TempDir(), "log"), os.Args[0], "play", what)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

func TestProgramIsAwaitedAndStopped(t *testing.T) {
	p := play(t, "good")
	line, err := p.await(t.Context(), "ready", patienceOfTest)
	if line != "ready now" || err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	if err := p.stop(patienceOfTest); err != nil {
		t.Error(err)
	}
	if got := strings.Join(tail(p.logFile, 9), "|"); got != "playing good|ready now" {
		t.Errorf("log %q", got)
	}
	if got := tail(p.logFile, 1); len(got) != 1 || got[0] != "ready now" {
		t.Errorf("the last line of the log is %q", got)
	}
}

func TestBadEndsAreErrors(t *testing.T) {
	for what, tt := range map[string]struct {
		patience time.Duration
		want     string
	}{"bad": {patienceOfTest, "exit code 3"}, "deaf": {time.Second, "was killed"}} {
		t.Run(what, func(t *testing.T) {
			p := play(t, what)
			if _, err := p.await(t.Context(), "ready", patienceOfTest); err != nil {
				t.Fatal(err)
			}
			if err := p.stop(tt.patience); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestEarlyEndIsNoticed(t *testing.T) {
	p := play(t, "fail")
	_, err := p.await(t.Context(), "never", patienceOfTest)
	if err == nil || !strings.Contains(err.Error(), "exit code 5") {
		t.Errorf("%v, want the exit code", err)
	}
	if p.stop(patienceOfTest) == nil {
		t.Error("stopping what has ended is no error")
	}
}

func TestKilledProgramIsOver(t *testing.T) {
	p := play(t, "deaf")
	if _, err := p.await(t.Context(), "ready", patienceOfTest); err != nil || p.ended() {
		t.Fatalf("%v, ended %v", err, p.ended())
	}
	p.kill()
	if !p.ended() || p.code != -1 {
		t.Errorf("ended %v with exit code %d, want a signal's -1", p.ended(), p.code)
	}
}

func TestSilenceHasAnEnd(t *testing.T) {
	p := play(t, "good")
	_, err := p.await(t.Context(), "never", 100*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), `no line "never"`) {
		t.Errorf("%v, want what was waited for", err)
	}
}

func TestCallReturnsOutputOrReason(t *testing.T) {
	if _, err := call(t.Context(), os.Args[0], "play", "fail"); err == nil || !strings.Contains(err.Error(), "exit status 5: playing fail") {
		t.Errorf("%v, want the status and what was said", err)
	}
	if out, err := call(t.Context(), os.Args[0], "play", "end"); out != "ready now\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := call(t.Context(), filepath.Join(t.TempDir(), "nothing")); err == nil {
		t.Error("a program that is not there is no error")
	}
}
