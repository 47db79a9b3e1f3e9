package answer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"hawser/internal/answer"
	"hawser/transport"
	"hawser/transport/wire"
)

func TestExitCodes(t *testing.T) {
	wrongPin := &transport.DialError{Hosts: []string{"h"}, Attempts: []transport.Attempt{{Reason: transport.Timeout}, {Reason: transport.WrongRoot}}}
	dial := &transport.DialError{Hosts: []string{"h"}, Attempts: []transport.Attempt{{Reason: transport.Expired}}}
	for _, tt := range []struct {
		err    error
		code   int
		advice string
	}{
		{nil, answer.ExitDone, ""},
		{errors.New("x"), answer.ExitFailed, ""},
		{answer.Usage("x"), answer.ExitUsage, ""},
		{fmt.Errorf("x: %w", answer.Usage("x: %w", dial)), answer.ExitUsage, ""},
		{&wire.Refusal{Reason: transport.NotEnrolled}, answer.ExitNotEnrolled, ""},
		{fmt.Errorf("x: %w", &wire.Refusal{Reason: transport.Policy}), answer.ExitRefused, "owner"},
		{&transport.Error{Reason: transport.Offline}, answer.ExitUnreachable, "power"},
		{&transport.Error{Reason: transport.Reset}, answer.ExitUnreachable, "firewall"},
		{fmt.Errorf("list devices: %w", dial), answer.ExitUnreachable, "clock"},
		{&transport.Error{Reason: transport.WrongRoot}, answer.ExitFailed, "--pin"},
		{fmt.Errorf("enroll: %w", wrongPin), answer.ExitRefused, "--pin"},
		{&transport.Error{Reason: "never heard of"}, answer.ExitFailed, ""},
		{&net.OpError{Op: "dial", Err: errors.New("refused, but of a local socket perhaps")}, answer.ExitFailed, ""},
		{fmt.Errorf("x: %w", &transport.Error{Reason: transport.Timeout, Err: context.Canceled}), answer.ExitFailed, ""},
	} {
		if got := answer.Code(tt.err); got != tt.code {
			t.Errorf("%v: exit code %d, want %d", tt.err, got, tt.code)
		}
		if got := answer.Advice(tt.err); !strings.Contains(got, tt.advice) {
			t.Errorf("%v: advice %q, want one with %q", tt.err, got, tt.advice)
		}
	}
}

func TestAnErrorIsOneCleanLine(t *testing.T) {
	for _, tt := range []struct {
		err          error
		advice, want string
	}{
		{errors.New("read a: no such file"), "", "read a: no such file"},
		{errors.New("read a: no such file"), "make one", "read a: no such file; make one"},
		{errors.Join(errors.New("a"), errors.New("b")), "c", "a; b; c"},
		{errors.New("press \x1b[2Jß\r"), "", "press ?[2Jß?"},
		{fmt.Errorf("x: %w", context.Canceled), "never said", "interrupted"},
	} {
		if got := answer.Line(tt.err, tt.advice); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestJSONIsOneLineOfASCII(t *testing.T) {
	var b bytes.Buffer
	if err := answer.JSON(&b, map[string]string{"name": "Süd <4> \x7f\u202e压🔥"}); err != nil {
		t.Fatal(err)
	}
	if want := `{"name":"S\u00fcd <4> \u007f\u202e\u538b\ud83d\udd25"}` + "\n"; b.String() != want {
		t.Errorf("got %s, want %s", &b, want)
	}
}
