package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hawser/server/count"
	"hawser/transport"
)

// Limits of the metrics' listener. Who scrapes needs one connection; the rest is for people with curl.
const (
	maxScrapers   = 32
	scrapeTime    = 10 * time.Second // reading a request, and answering it
	scrapeIdle    = 30 * time.Second // between two
	scrapeHeaders = 8 << 10
)

// checkMetrics returns where the metrics are served (cli §5); the zero AddrPort: nowhere. They say how much is done and
// what fails, and whoever can read them needs no certificate: so they are for this machine and its own network, unless
// the operator says in another key that he means it.
func (r raw) checkMetrics(public []transport.Port) (netip.AddrPort, error) {
	if r.Metrics == "" {
		if r.MetricsPublic {
			return netip.AddrPort{}, at("metrics_public", "there is no metrics key")
		}
		return netip.AddrPort{}, nil
	}
	where, err := netip.ParseAddrPort(r.Metrics)
	if err != nil || where.Port() == 0 {
		return netip.AddrPort{}, at("metrics", "%.60q is not ADDRESS:PORT, such as 127.0.0.1:9464", r.Metrics)
	}
	if slices.Contains(public, transport.Port(where.Port())) {
		return netip.AddrPort{}, at("metrics", "port %d is one on which clients are served: take another one", where.Port())
	}
	if a := where.Addr().Unmap(); !a.IsLoopback() && !a.IsPrivate() && !r.MetricsPublic {
		return netip.AddrPort{}, at("metrics", "%s is neither of this machine nor private: strangers could read there what this server does. If a firewall keeps them out, add metrics_public: true", a)
	}
	return where, nil
}

// openMetrics opens the listener of the metrics, if there is one. It is there before the ports are: while a server waits
// for its lease, its operator wants to see why.
func (r *running) openMetrics() error {
	if !r.Config.Metrics.IsValid() {
		return nil
	}
	ln, err := r.Listen("tcp", r.Config.Metrics.String())
	if err != nil {
		return fmt.Errorf("open metrics: %w", err)
	}
	r.scraped = ln
	r.tasks = append(r.tasks, func(ctx context.Context) error { serveMetrics(ctx, ln, r.metrics); return nil })
	return nil
}

// exportBuild adds what this program is, and until when the roots are good.
func (r *running) exportBuild() {
	version := r.Version
	if version == "" {
		version = "unknown"
	}
	r.metrics.NewGauge(fmt.Sprintf("hawser_build_info{version=%q}", version), func() float64 { return 1 })
	r.exportExpiry("root", func() time.Time { return soonest(r.roots.Certificates()) })
}

// exportExpiry adds until when a certificate is good; zero while there is none.
func (r *running) exportExpiry(certificate string, notAfter func() time.Time) {
	r.metrics.NewGauge(fmt.Sprintf("hawser_certificate_expiry_timestamp_seconds{certificate=%q}", certificate),
		func() float64 { return count.Seconds(notAfter()) })
}

// expiryOf is for a certificate that renews itself.
func expiryOf(certificate func() (*tls.Certificate, error)) func() time.Time {
	return func() time.Time {
		c, err := certificate()
		if err != nil || c.Leaf == nil {
			return time.Time{} // a relay that has not enrolled yet
		}
		return c.Leaf.NotAfter
	}
}

// soonest is when the first of several certificates ends.
func soonest(certs []*x509.Certificate) (first time.Time) {
	for _, c := range certs {
		if first.IsZero() || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	return first
}

// serveMetrics answers GET /metrics until ctx ends, closes ln, and returns when every connection is over.
func serveMetrics(ctx context.Context, ln net.Listener, set *metrics.Set) {
	var conns sync.WaitGroup
	var open atomic.Int64
	server := &http.Server{
		Handler:     metricsHandler(set),
		ReadTimeout: scrapeTime, WriteTimeout: scrapeTime, IdleTimeout: scrapeIdle, MaxHeaderBytes: scrapeHeaders,
		ErrorLog: log.New(io.Discard, "", 0), // what a scanner sends is no news
		ConnState: func(c net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew: // told before its goroutine starts
				conns.Add(1)
				if open.Add(1) > maxScrapers {
					c.Close()
				}
			case http.StateClosed: // told as its goroutine ends
				open.Add(-1)
				conns.Done()
			}
		},
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	server.Serve(ln) // the error only says that it was closed
	conns.Wait()
}

// metricsHandler writes into memory first: a reader that stalls must not hold what a gauge looks at.
func metricsHandler(set *metrics.Set) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		var text bytes.Buffer
		set.WritePrometheus(&text)
		metrics.WriteProcessMetrics(&text)
		metrics.WriteFDMetrics(&text)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		w.Write(text.Bytes())
	})
	return mux
}
