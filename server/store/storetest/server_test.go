//go:build linux

package storetest

import (
	"database/sql"
	"os"
	"testing"
)

var cluster Cluster

func TestMain(m *testing.M) { os.Exit(cluster.Run(m)) }

func connect(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func TestEachTestHasItsDatabase(t *testing.T) {
	for range 2 {
		db := connect(t, cluster.URL(t))
		if _, err := db.Exec("CREATE TABLE mine (x INTEGER)"); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatWasCommittedIsThereAfterAKill(t *testing.T) {
	s := cluster.Server(t)
	db := connect(t, s.URL(t))
	if _, err := db.Exec("CREATE TABLE mine (x INTEGER)"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := db.Exec("INSERT INTO mine VALUES (1)"); err != nil {
			t.Fatal(err)
		}
		s.Kill(t)
		if err := db.Ping(); err == nil {
			t.Error("it answers while it is dead")
		}
		s.Start(t)
		var n int
		if err := db.QueryRow("SELECT count(*) FROM mine").Scan(&n); err != nil || n != i+1 {
			t.Errorf("%d rows after %d inserts, %v", n, i+1, err)
		}
	}
	s.Stop(t)
	s.Start(t)
	if err := db.Ping(); err != nil {
		t.Error(err)
	}
}
