package access

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/identity"
	"hawser/identity/identitytest"
	"hawser/transport"
	"hawser/transport/wire"
)

// firstFrames asks for the time as uid and returns the types of what comes.
func (w *world) firstFrames(uid identity.UID) (types []wire.Type, reset []byte) {
	w.t.Helper()
	conn := w.dial(transport.ALPNAccess, nil)
	defer conn.Close()
	request := wire.NewTimeRequest([32]byte{1}, uid)
	if err := wire.Write(conn, wire.TypeTimeRequest, request[:]); err != nil {
		w.t.Fatal(err)
	}
	for {
		f, err := wire.Read(conn)
		if err != nil {
			w.t.Fatal(err)
		}
		types = append(types, f.Type)
		if f.Type != wire.TypeFloorReset {
			return types, reset
		}
		reset = f.Payload
	}
}

func TestAFloorResetComesBeforeTheTimeAndOnlyToItsDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, uid := t.TempDir(), identity.NewUID()
		var behind time.Duration
		var log bytes.Buffer
		w := newWorld(t, func(c *Config) {
			c.FloorResets, c.Logger = dir, slog.New(slog.NewTextHandler(&log, nil))
			c.Now = func() time.Time { return time.Now().Add(-behind) }
		})
		defer w.stop()
		good := must(identity.FloorReset{UID: uid, To: time.Now(), Sequence: 1}.Sign(w.pki.Root))
		flipped := slices.Clone(good)
		flipped[60] ^= 1
		stranger := identitytest.New(time.Now()).Root
		other := identity.NewUID()
		cases := []struct {
			name string
			file []byte // nil: none
			uid  identity.UID
			sent bool
		}{
			{"none is there", nil, uid, false},
			{"good", good, uid, true},
			{"another device asks", good, other, false},
			{"nobody in particular asks", good, identity.UID{}, false},
			{"empty", []byte{}, uid, false},
			{"truncated", good[:117], uid, false},
			{"a byte too long", append(slices.Clone(good), 0), uid, false},
			{"a mebibyte too long", append(slices.Clone(good), make([]byte, 1<<20)...), uid, false},
			{"a bit flipped", flipped, uid, false},
			{"of another root", must(identity.FloorReset{UID: uid, To: time.Now()}.Sign(stranger)), uid, false},
			{"of another device, under this name", must(identity.FloorReset{UID: other, To: time.Now()}.Sign(w.pki.Root)), uid, false},
			{"good again", good, uid, true},
		}
		t.Attr("id", "A1-input")
		t.Attr("cases", fmt.Sprint(len(cases)))
		for _, c := range cases {
			path := filepath.Join(dir, uid.String())
			os.Remove(path)
			if c.file != nil {
				if err := os.WriteFile(path, c.file, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			types, reset := w.firstFrames(c.uid)
			want := []wire.Type{wire.TypeTime}
			if c.sent {
				want = []wire.Type{wire.TypeFloorReset, wire.TypeTime}
			}
			if !slices.Equal(types, want) || c.sent && !bytes.Equal(reset, good) {
				t.Errorf("%s: got frames %v, want %v", c.name, types, want)
			}
		}
		if n := strings.Count(log.String(), "floor reset is not sent"); n != 1 {
			t.Errorf("said %d times within a minute that one is not sent", n)
		}
		behind = time.Hour
		if types, _ := w.firstFrames(uid); !slices.Equal(types, []wire.Type{wire.TypeFloorReset, wire.TypeRefuse}) {
			t.Errorf("with a wrong clock: frames %v", types)
		}
	})
}
