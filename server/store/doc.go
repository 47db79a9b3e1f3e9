// Package store keeps what an Access Server must not forget (access §1): who exists, who may enroll, whose keys are
// revoked, which sessions are open, and the audit. SQL is written here and nowhere else.
//
// The database is SQLite in a file, or a PostgreSQL server that several Access Servers share. Both have one schema and
// one set of statements; what differs between them is in engine.go.
//
//	st, err := store.Open(ctx, store.Options{Dir: dir, Node: "access1"})
//	err = st.Update(ctx, func(tx *store.Tx) error {
//		d := store.Member{Kind: identity.KindDevice, ID: uid}
//		if err := tx.Get(&d); err != nil {
//			return err
//		}
//		d.Revoked = now
//		return errors.Join(tx.Put(&d), tx.Append(record))
//	})
//
// # What a transaction promises
//
// Update returns nil when everything that its function wrote is on disk together, and the file beside the database
// knows it. When it returns an error nothing was written, or, for ErrAway and ErrFull, that is not certain: the caller
// refuses, and its client asks again. The function may run several times and must not act on anything but tx.
// Functions of one Store run one after the other, and many share one commit.
//
// # How damage is noticed
//
// Disks flip bits, file systems forget, operators restore the wrong backup. Each row has a seal, a SHA-256 over its
// key and values, which is checked whenever the row is read. Each table has sums, one for each of 256 buckets of rows,
// which a row cannot leave or join unnoticed. And a small file outside the database, the progress, knows the last
// commit of this node, so that a database that went back in time is noticed. All are against accidents: whoever may
// write the database can make seals and sums that fit.
//
// Open reads all tables and the end of the audit; Scrub reads everything again, slowly. What they find is in Health.
// While rows are missing, Update fails with ErrDamaged, because a missing row may be a revocation. A bad row shuts out
// its subject alone: Get fails with ErrDamaged for it.
package store
