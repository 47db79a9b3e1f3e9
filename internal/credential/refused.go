package credential

import (
	"errors"
	"io/fs"
	"path/filepath"

	"hawser/identity"
	"hawser/internal/durable"
)

// RefusedFile holds, in a directory, what the root has signed of keys that count no more (identity §18).
const RefusedFile = "refused.keys"

// LoadRefused lets the list that is kept in dir count under roots. None is no error, and one that these roots have not signed
// counts for nothing: it is of an infrastructure before.
func LoadRefused(dir string, roots *identity.Roots) error {
	_, list, err := readRefused(dir, roots)
	if err == nil {
		roots.Refuse(list)
	}
	if errors.Is(err, fs.ErrNotExist) || identity.FaultOf(err) != "" {
		return nil
	}
	return err
}

func readRefused(dir string, roots *identity.Roots) (raw []byte, list identity.RefusedKeys, err error) {
	if raw, err = durable.ReadPublic(filepath.Join(dir, RefusedFile), int64(identity.MaxRefusedBytes)); err == nil {
		list, err = identity.VerifyRefusedKeys(raw, roots)
	}
	return raw, list, err
}

// KeepRefused stores a list that was verified under roots, unless a newer one is there. It is there whole, or that of
// before, whenever the power goes.
func KeepRefused(dir string, raw []byte, list identity.RefusedKeys, roots *identity.Roots) error {
	if _, kept, err := readRefused(dir, roots); err == nil && kept.Sequence >= list.Sequence {
		return nil
	}
	return durable.WriteFile(filepath.Join(dir, RefusedFile), raw, Private)
}
