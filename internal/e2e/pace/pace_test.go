//go:build linux

package pace

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func proc(cpu string, processes map[string]string) fstest.MapFS {
	files := fstest.MapFS{"stat": {Data: []byte("cpu  " + cpu + " 7 8\ncpu0 1 2 3\n")}, "self/stat": {Data: []byte("x")}}
	for pid, rest := range processes {
		files[pid+"/stat"] = &fstest.MapFile{Data: []byte(pid + rest)}
	}
	return files
}

// stat is a process with a name, a parent, and its four times.
func stat(name, parent, times string) string {
	return " (" + name + ") S " + parent + " 0 0 0 0 0 0 0 0 0 " + times + " 20 0\n"
}

func TestWhatOthersTookIsWhatIsNotOurs(t *testing.T) {
	files := proc("100 20 30 99999 4 5 6 1", map[string]string{
		"1":  stat("init", "0", "1 1 0 0"),
		"10": stat("go test) R 1 (", "1", "10 5 20 5"),
		"11": stat("agent", "10", "3 2 0 0"),
		"12": stat("of somebody else", "1", "50 0 0 0"),
		"13": " (just ended)", // its line was cut off
	})
	for root, ours := range map[int]int{10: 45, 11: 5, 1: 97, 99: 0} {
		s, err := read(files, root)
		if err != nil || s.all != 166*tick || s.ours != time.Duration(ours)*tick {
			t.Errorf("below %d: %+v, %v; want 166 and %d ticks", root, s, err, ours)
		}
	}
	for name, bad := range map[string]fstest.MapFS{"none": {}, "another file": proc("x", nil), "a number that is none": proc("1 2 3 4 5 6 7 -", nil)} {
		if _, err := read(bad, 1); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, _ ...any) { r.failures = append(r.failures, format) }

func TestOnlyTheLoadOfOthersIsAnExcuse(t *testing.T) {
	now := spentNow(os.Getpid())
	if now.all == 0 {
		t.Fatal("/proc says nothing")
	}
	for name, tt := range map[string]struct {
		all, ours, took time.Duration
		good            bool
	}{
		"in time":                          {0, 0, 8 * time.Second, true},
		"late, for nothing":                {0, 0, time.Hour, false},
		"late, others were busy":           {2 * time.Hour, 0, time.Hour, true},
		"late, we were busy":               {time.Hour, time.Hour, time.Hour, false},
		"later than the others could help": {time.Minute, 0, time.Hour, false},
	} {
		// The start is moved back in time instead of waiting.
		w := &Watch{os.Getpid(), spent{now.all - tt.all, now.ours - tt.ours}}
		r := &recorder{TB: t}
		w.Within(r, "online", tt.took, 8*time.Second)
		if (len(r.failures) == 0) != tt.good {
			t.Errorf("%s: failures %q", name, r.failures)
		}
	}
}

func TestAConnectionThatMovesIsWaitedFor(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	var p Progress
	c := p.Conn(here.(*net.TCPConn))
	defer c.Close()
	go func() {
		io.Copy(there, there)
		there.Close()
	}()
	text := strings.Repeat("all of it", 1000)
	if n, err := io.WriteString(c, text); n != len(text) || err != nil {
		t.Fatalf("wrote %d, %v", n, err)
	}
	c.CloseWrite()
	if back, err := io.ReadAll(c); string(back) != text || err != nil {
		t.Errorf("%d bytes came back, %v", len(back), err)
	}
}

// A silent connection is given up once nothing moves on any of them.
func TestAConnectionThatIsStuckIsGivenUp(t *testing.T) {
	var p Progress
	c := &Conn{progress: &p}
	tries := 0
	stuck := func([]byte) (int, error) {
		switch tries++; tries {
		case 1, 2:
			p.moved() // another connection
		case 3:
			p.last.Store(time.Now().Add(-Patience - time.Second).UnixNano())
		}
		return 0, os.ErrDeadlineExceeded
	}
	n, err := c.try(nil, stuck, func(time.Time) error { return nil })
	if n != 0 || err != os.ErrDeadlineExceeded || tries != 3 {
		t.Errorf("%d, %v after %d tries, want 3", n, err, tries)
	}
}
