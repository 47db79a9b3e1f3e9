// Package access is the Access Server: it enrols, keeps the registry, knows who is online and brokers sessions.
//
// What it keeps, decides and answers is docs/spec/access.md; the frames are
// those of docs/spec/wire.md §3 and §4. One Server takes connections that
// somebody else has accepted and shaken hands with, and judges every client by
// itself:
//
//	s, err := access.New(cfg)
//	go s.Run(ctx)                    // reads the store, then vouches for the rest
//	s.ServeConn(ctx, conn)           // ALPN hawser-access/1: Runtimes and relays
//	s.ServeAPI(ctx, conn)            // ALPN hawser-api/1: Managers
//
// Several of them with one Store and one Bus are one Access Server (access §9).
//
// Decisions are pure functions (judgeEnrol, judgeLogin, judgeUser, choose);
// around them are thin loops of compare-and-set on a Store. What is in memory,
// presence above all, is gone with the process and comes back with the
// connections; measurements that the store does not have yet are written when
// Run ends.
package access
