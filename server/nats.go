package server

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"hawser/server/access"
)

// check turns access.nats into what is meant; nil is the store in the own
// directory. name is that of the Access Server.
func (r *rawNATS) check(dir, name string) (n access.NATS, err error) {
	if r == nil {
		return n, nil
	}
	n.Name = "hawser " + name
	if n.URLs, err = parseNATS(r.URL); err != nil {
		return n, err
	}
	if r.Credentials != "" {
		n.Credentials = absolute(dir, r.Credentials)
	}
	return n, nil
}

// parseNATS reads URL[,URL…]. It shows no URL in an error: passwords may be in it.
func parseNATS(list string) (urls []string, err error) {
	for _, s := range strings.Split(list, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		switch {
		case err != nil || u.Hostname() == "" || u.Scheme != "nats" && u.Scheme != "tls":
			return nil, errors.New("url: not nats://HOST:PORT or tls://HOST:PORT, or several with commas")
		case u.Path != "" || u.RawQuery != "" || u.Fragment != "":
			return nil, errors.New("url: something follows the port")
		}
		u.Host = cmp.Or(withPort(u), u.Host)
		urls = append(urls, u.String())
	}
	if len(urls) > maxList {
		return nil, fmt.Errorf("url: more than %d", maxList)
	}
	return urls, nil
}

// withPort returns the host with NATS's own port, or nothing if it has one.
func withPort(u *url.URL) string {
	if u.Port() != "" {
		return ""
	}
	return u.Host + ":4222"
}

// openStore opens the store of an Access Server; only an external one comes
// with a bus to others.
func openStore(c AccessConfig) (access.Store, access.Bus, error) {
	if len(c.NATS.URLs) > 0 {
		return access.OpenNATS(c.NATS)
	}
	store, err := openEmbedded(c.Dir)
	return store, nil, err
}

// openEmbedded opens the store in an Access Server's own directory.
func openEmbedded(dir string) (access.Store, error) {
	info, err := os.Stat(dir)
	if err == nil {
		err = checkOwner(dir, info)
	}
	if err != nil {
		return nil, err
	}
	return access.OpenJetStream(filepath.Join(dir, storeDir))
}
