// Package storetest runs real PostgreSQL servers for tests, which may be killed and started again. They listen on a
// socket in a temporary directory alone, and end with the test binary, however that ends. Real sockets do not work in a
// bubble of testing/synctest.
//
//	var cluster storetest.Cluster
//
//	func TestMain(m *testing.M) { os.Exit(cluster.Run(m)) }
//
//	func TestIt(t *testing.T) { st, err := store.Open(ctx, store.Options{URL: cluster.URL(t), …}) … }
package storetest
