package manager

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"hawser/internal/credential"
	"hawser/internal/durable"
	"hawser/internal/provision"
)

// CheckOut tells whether a provisioning file can be made there: before the server takes the code, and nothing is written. What
// is there is never overwritten.
func CheckOut(file string) error {
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return usage("provisioning file: %s is there already", file)
	}
	if info, err := os.Stat(filepath.Dir(file)); err != nil || !info.IsDir() {
		return usage("provisioning file: there is no directory %s", filepath.Dir(file))
	}
	return nil
}

// WriteProvisioning writes the file with which the gateway of a new device enrolls (docs/image.md §2), for its owner alone,
// and takes the code out of d: it is there, and nowhere else.
func (a *Account) WriteProvisioning(d *NewDevice, file string) (err error) {
	if d.File, err = a.provision(file, d.Name, d.Code); err == nil {
		d.Code = ""
	}
	return err
}

// WriteBatch writes the one file for all gateways of a batch, as WriteProvisioning does.
func (a *Account) WriteBatch(b *NewBatch, file string) (err error) {
	if b.File, err = a.provision(file, b.Name, b.Code); err == nil {
		b.Code = ""
	}
	return err
}

// provision writes a provisioning file and returns its path.
func (a *Account) provision(file, name, code string) (string, error) {
	f := provision.File{Access: a.state.config.Hosts, Ports: a.state.config.Ports, Code: code, Pin: a.rootPin(), Name: name}
	if err := CheckOut(file); err != nil {
		return "", err
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	if err := durable.WriteFile(path, f.Text(), credential.Private); err != nil {
		return "", asUsage(err)
	}
	return path, nil
}
