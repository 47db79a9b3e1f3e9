package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"hawser/server/count"
	"hawser/transport"
)

// listenCounters is what the listener counts. Its methods are safe for concurrent use.
type listenCounters struct {
	accepted       *metrics.Counter
	open           *metrics.Gauge
	handshakes     count.Family // by the role that they led to
	failed         count.Family // handshakes
	cannotAccept   *metrics.Counter
	handshakeTimes *metrics.PrometheusHistogram
}

func newListenCounters(set *metrics.Set) *listenCounters {
	return &listenCounters{
		accepted:       set.NewCounter("hawser_connections_total"),
		open:           set.NewGauge("hawser_connections", nil),
		handshakes:     count.NewFamily(set, "hawser_handshakes_total", "role"),
		failed:         count.NewFamily(set, "hawser_handshake_failures_total", "reason"),
		cannotAccept:   set.NewCounter("hawser_accept_errors_total"),
		handshakeTimes: count.Times(set, "hawser_handshake_duration_seconds"),
	}
}

// handshake counts one that has ended. Only those that succeed are timed: the others take as long as a stranger likes.
func (c *listenCounters) handshake(began time.Time, r role, err error) {
	if err != nil {
		c.failed.Inc(handshakeFault(err))
		return
	}
	c.handshakes.Inc(r.label())
	c.handshakeTimes.UpdateDuration(began)
}

// label is the role in a metric.
func (r role) label() string {
	switch r.alpn {
	case transport.ALPNAccess:
		return "access"
	case transport.ALPNAPI:
		return "api"
	case transport.ALPNRelay:
		return "relay"
	case transport.ALPNNode:
		return "node"
	}
	return "other"
}

// handshakeFault is why a handshake failed: a reason of wire §7 where there is one for it.
func handshakeFault(err error) string {
	switch {
	case errors.Is(err, errBalancer):
		return "proxy-header"
	case errors.Is(err, errWebUser):
		return string(transport.PlainHTTP)
	case errors.Is(err, errNoPlace):
		return "full"
	case errors.Is(err, errNoRole):
		return string(transport.WrongProtocol)
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return string(transport.Closed)
	case errors.Is(err, context.DeadlineExceeded):
		return string(transport.Timeout)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return string(transport.NotTLS)
	}
	switch reason := transport.ReasonOf(err); reason {
	case transport.Timeout, transport.Reset:
		return string(reason)
	}
	return "other"
}
