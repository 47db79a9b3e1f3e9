package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// What an operator can do to a PostgreSQL server, and may undo, is busy for clients and no fault of ours.
func TestStatesOfPostgres(t *testing.T) {
	e := &engine{postgres: true, where: "db"}
	for code, want := range map[string]error{
		"53100": ErrFull, "25006": ErrFull, "42501": ErrFull, // disk full, read-only, a right that was taken away
		"57P01": ErrAway, "57P03": ErrAway, "53300": ErrAway, "08006": ErrAway, // shut down, starting, too many clients, connection
		"28P01": ErrAway, "3D000": ErrAway, "40001": ErrAway, // password, no such database, met another
		"23505": ErrExists, "XX001": ErrDamaged,
		"42P01": nil, "22021": nil, // ours
	} {
		err := e.classify(fmt.Errorf("read: %w", &pgconn.PgError{Code: code}))
		for _, kind := range []error{ErrFull, ErrAway, ErrExists, ErrDamaged} {
			if errors.Is(err, kind) != (kind == want) {
				t.Errorf("%s is %v, want %v", code, err, want)
			}
		}
	}
}
