// Package access is the Access Server: it enrolls, keeps the registry, knows who is online and brokers sessions.
//
// What it keeps, decides and answers is docs/spec/access.md; the frames are those of docs/spec/wire.md §3 and §4. A
// Server takes connections that somebody else has accepted and whose TLS handshake is done, and authenticates every
// client itself:
//
//	s, err := access.New(cfg)
//	go s.Run(ctx)                    // reads the store, then renews, writes and cleans up
//	s.ServeConn(ctx, conn)           // ALPN hawser-access/1: Runtimes and relays
//	s.ServeAPI(ctx, conn)            // ALPN hawser-api/1: Managers
//	s.ServeNode(ctx, conn)           // ALPN hawser-node/1: other Access Servers on the same database
//
// Several Servers on one database are one Access Server (access §9); each of them is a node. They tell each other of
// changes through the store, and send hints and orders over a Bus.
//
// Decisions are pure functions (judgeEnroll, judgeLogin, judgeUser, and package choose). Around each is one transaction
// of the store, which may run several times and has no other effect. What is only in memory, above all who is online,
// ends with the process and comes back with the connections. Measurements that are not in the store yet are written when
// Run ends.
//
// Where a file belongs: api, routes, refusal: what every request goes through. enroll, login, devices, relays, broker,
// move: one operation each, from the request to the row. control, link, presence: connections of Runtimes and relays.
// cluster, lease, mirror, order, peers: the part in being one of several.
package access
