//go:build linux

package lab

import (
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/simonvetter/modbus"
)

// modbusServer is the role of a PLC with four holding registers, on Modbus's own port, until it is killed.
func modbusServer([]string) any {
	server, err := modbus.NewServer(&modbus.ServerConfiguration{URL: "tcp://0.0.0.0:502", MaxClients: 5, Logger: log.New(io.Discard, "", 0)},
		&registers{values: [4]uint16{11, 22, 33, 44}})
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		return answer{Error: err.Error()}
	}
	fmt.Println("listening")
	select {}
}

// registers answers functions 3, 6 and 16, and refuses the others.
type registers struct {
	mu     sync.Mutex
	values [4]uint16
}

func (r *registers) HandleHoldingRegisters(q *modbus.HoldingRegistersRequest) ([]uint16, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	end := int(q.Addr) + int(q.Quantity)
	if end > len(r.values) {
		return nil, modbus.ErrIllegalDataAddress
	}
	if q.IsWrite {
		copy(r.values[q.Addr:end], q.Args)
	}
	return append([]uint16(nil), r.values[q.Addr:end]...), nil
}

func (r *registers) HandleInputRegisters(*modbus.InputRegistersRequest) ([]uint16, error) {
	return nil, modbus.ErrIllegalFunction
}

func (r *registers) HandleCoils(*modbus.CoilsRequest) ([]bool, error) {
	return nil, modbus.ErrIllegalFunction
}

func (r *registers) HandleDiscreteInputs(*modbus.DiscreteInputsRequest) ([]bool, error) {
	return nil, modbus.ErrIllegalFunction
}

// useSSH sends a file to the machine and fetches one, and wants the machine's own host key on the other side.
func useSSH(t *testing.T, g *gateway) {
	here, want := noise(t, 4<<20)
	dir := t.TempDir()
	startSSH(t, dir)
	host, port := g.forwardTo(t, "2222")
	public := strings.Fields(string(contents(t, filepath.Join(dir, "host.pub"))))
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, fmt.Appendf(nil, "[%s]:%s %s %s\n", host, port, public[0], public[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	ssh := strings.Join([]string{"ssh -F none -p", port, "-i", filepath.Join(dir, "user"), "-o UserKnownHostsFile=" + known,
		"-o StrictHostKeyChecking=yes -o IdentitiesOnly=yes -o BatchMode=yes machine@" + host}, " ")
	there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
	must(t, nil, "tech", "sh", "-c", fmt.Sprintf("%s 'cat >%s' <%s", ssh, there, here))
	expectBytes(t, "upload", there, want)
	must(t, nil, "tech", "sh", "-c", fmt.Sprintf("%s 'cat %s' >%s", ssh, here, back))
	expectBytes(t, "download", back, want)
}

// startSSH starts OpenSSH's server for a user of the machine's. It must not think that it is root, who would become
// somebody else first: the lab has nobody else.
func startSSH(t *testing.T, dir string) {
	t.Helper()
	for _, key := range []string{"host", "user"} {
		run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key))
	}
	conf := filepath.Join(dir, "sshd_config")
	for file, text := range map[string]string{
		"/etc/netns/plc1/passwd": "machine:x:1000:1000::" + dir + ":/bin/sh\n", // ip-netns(8): there it is /etc/passwd
		conf: "Port 2222\nHostKey " + dir + "/host\nAuthorizedKeysFile " + dir + "/user.pub\n" +
			"PasswordAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.Remove("/etc/netns/plc1/passwd") })
	sshd, err := exec.LookPath("sshd") // it starts itself anew for each connection, and so must know its path
	if err != nil {
		t.Fatal(err)
	}
	start(t, "plc1", "unshare", "--user", "--map-user=1000", "--map-group=1000", sshd, "-D", "-e", "-f", conf).await(0, "Server listening on 0.0.0.0")
}

var _ modbus.RequestHandler = (*registers)(nil)
