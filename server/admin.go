package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"hawser/server/access"
	"hawser/server/store"
)

// adminSocket is where a running Access Server takes commands, in its directory: whoever may open that directory is its
// operator. The directory has mode 0700, so the file system is who authenticates. The store has one owner: a tool that
// opened it beside the server would be taken for a second process of the same node.
const adminSocket = "admin.sock"

// storeAdmin is what an operator does with a store: through the socket of a running server, or by opening the store.
type storeAdmin interface {
	Check(ctx context.Context) (text string, err error)
	Backup(ctx context.Context, w io.Writer) error
	Accept(ctx context.Context) error
	Move(ctx context.Context, url string) error
	Found(ctx context.Context, f founding) (founded, error)
}

// founding asks for a founder's code: of a domain that is new, or that is there.
type founding struct {
	Domain, User string
	Add          bool
}

// founded is a founder's code, which is stored nowhere as it is.
type founded struct {
	Code    string
	Expires time.Time
}

// localAdmin works on a store that this process has opened.
type localAdmin struct {
	config AccessConfig
	store  *store.Store
	now    func() time.Time
}

// Check looks at the store, and whether it speaks against the clock.
func (d localAdmin) Check(ctx context.Context) (string, error) {
	text, err := d.store.Check(ctx)
	if err != nil {
		return "", err
	}
	return text, access.CheckClock(ctx, d.store, d.config.ClockSet, d.now())
}

// Backup is that of the store.
func (d localAdmin) Backup(ctx context.Context, w io.Writer) error { return d.store.Backup(ctx, w) }

// Accept is that of the store.
func (d localAdmin) Accept(ctx context.Context) error { return d.store.Accept(ctx) }

// Move copies the store to the PostgreSQL database at url, or for "" into the server's directory. From then on nothing
// is written to the old one.
func (d localAdmin) Move(ctx context.Context, url string) error {
	if url == d.config.Store {
		return errors.New("move store: it is there already")
	}
	to := d.config
	if to.Store = url; url == "" { // a store of before an earlier move
		if err := store.SetAside(filepath.Join(to.Dir, storeDir), d.now()); err != nil {
			return fmt.Errorf("move store: %w", err)
		}
	}
	_, err := d.store.MoveTo(ctx, to.storeOptions(false, nil))
	return err
}

// Found makes a founder's code.
func (d localAdmin) Found(ctx context.Context, f founding) (founded, error) {
	make := access.FounderCode
	if f.Add {
		make = access.AddDomain
	}
	code, expires, err := make(ctx, d.store, f.Domain, f.User, d.now())
	return founded{code.String(), expires}, err
}

// The admin socket speaks HTTP/1.1. An error is adminError in JSON.
const (
	adminCheck  = "/check"
	adminBackup = "/backup"
	adminAccept = "/accept"
	adminMove   = "/move"
	adminFound  = "/found"
)

// maxAdminBody is more than a URL needs.
const maxAdminBody = 64 << 10

type adminError struct {
	Error   string `json:"error"`
	Damaged bool   `json:"damaged,omitempty"`
}

// serveAdmin answers the operator until ctx ends. A server that cannot have the socket serves its clients all the same.
// Backups take as long as they take, so that there is a limit for the head of a request only.
func serveAdmin(ctx context.Context, dir string, k storeAdmin, log *slog.Logger) {
	path := filepath.Join(dir, adminSocket)
	err := os.Remove(path) // of a process that was killed: nobody else has the lock of the store
	if err == nil || errors.Is(err, os.ErrNotExist) {
		var l net.Listener
		if l, err = net.Listen("unix", path); err == nil {
			err = os.Chmod(path, 0o600)
			s := &http.Server{Handler: adminHandler(k, log), ReadHeaderTimeout: time.Minute, BaseContext: func(net.Listener) context.Context { return ctx }}
			stop := context.AfterFunc(ctx, func() { s.Close() })
			defer stop()
			if err == nil {
				s.Serve(l) // until Close, which removes the file
				return
			}
			l.Close()
		}
	}
	log.Error("commands beside this server do not reach it", "socket", path, "err", err)
}

// adminHandler answers in JSON; a backup is a stream, since a store may be larger than the memory.
func adminHandler(k storeAdmin, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+adminCheck, func(w http.ResponseWriter, r *http.Request) {
		text, err := k.Check(r.Context())
		answerAdmin(w, map[string]string{"text": text}, err)
	})
	mux.HandleFunc("GET "+adminBackup, func(w http.ResponseWriter, r *http.Request) {
		begun := &noteWrites{w: w}
		err := k.Backup(r.Context(), begun)
		switch {
		case err == nil:
		case !begun.wrote:
			answerAdmin(w, nil, err)
		default:
			log.Error("a backup was broken off", "err", err)
			// The status was sent long ago; a connection that breaks is the only way left to say that it failed.
			panic(http.ErrAbortHandler) // so that nobody takes it for whole
		}
	})
	mux.HandleFunc("POST "+adminAccept, func(w http.ResponseWriter, r *http.Request) {
		answerAdmin(w, map[string]string{}, k.Accept(r.Context()))
	})
	mux.HandleFunc("POST "+adminMove, func(w http.ResponseWriter, r *http.Request) {
		var body struct{ URL string }
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody)).Decode(&body)
		if err == nil {
			err = k.Move(r.Context(), body.URL)
		}
		answerAdmin(w, map[string]string{}, err)
	})
	mux.HandleFunc("POST "+adminFound, func(w http.ResponseWriter, r *http.Request) {
		var body founding
		var made founded
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminBody)).Decode(&body)
		if err == nil {
			made, err = k.Found(r.Context(), body)
		}
		answerAdmin(w, made, err)
	})
	return mux
}

func answerAdmin(w http.ResponseWriter, body any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		body = adminError{err.Error(), errors.Is(err, store.ErrDamaged)}
	}
	json.NewEncoder(w).Encode(body)
}

// noteWrites notes whether anything was written.
type noteWrites struct {
	w     io.Writer
	wrote bool
}

// Write writes to the writer below.
func (n *noteWrites) Write(b []byte) (int, error) {
	n.wrote = true
	return n.w.Write(b)
}

// remoteAdmin works on the store of a running server.
type remoteAdmin struct{ client *http.Client }

// dialAdmin finds the running server of a directory; nil: there is none that answers. It connects once and hangs up: a
// socket file alone may be of a process that was killed.
func dialAdmin(dir string) *remoteAdmin {
	path := filepath.Join(dir, adminSocket)
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return nil
	}
	conn.Close()
	return &remoteAdmin{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}}}
}

// Check asks the server.
func (r *remoteAdmin) Check(ctx context.Context) (string, error) {
	var answer struct{ Text string }
	err := r.ask(ctx, http.MethodGet, adminCheck, nil, func(body io.Reader) error { return json.NewDecoder(body).Decode(&answer) })
	return answer.Text, err
}

// Backup lets the server write to w.
func (r *remoteAdmin) Backup(ctx context.Context, w io.Writer) error {
	return r.ask(ctx, http.MethodGet, adminBackup, nil, func(body io.Reader) error {
		_, err := io.Copy(w, body)
		return err
	})
}

// Accept tells the server.
func (r *remoteAdmin) Accept(ctx context.Context) error {
	return r.ask(ctx, http.MethodPost, adminAccept, nil, nil)
}

// Move tells the server.
func (r *remoteAdmin) Move(ctx context.Context, url string) error {
	return r.ask(ctx, http.MethodPost, adminMove, map[string]string{"URL": url}, nil)
}

// Found asks the server.
func (r *remoteAdmin) Found(ctx context.Context, f founding) (made founded, err error) {
	err = r.ask(ctx, http.MethodPost, adminFound, f, func(body io.Reader) error { return json.NewDecoder(body).Decode(&made) })
	return made, err
}

// ask has no time limit: check reads the whole store, and move copies it. The caller's ctx ends it.
func (r *remoteAdmin) ask(ctx context.Context, method, path string, body any, read func(io.Reader) error) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://server"+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the running server: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		var problem adminError
		if err := json.NewDecoder(response.Body).Decode(&problem); err != nil {
			return fmt.Errorf("ask the running server: status %d", response.StatusCode)
		}
		if problem.Damaged {
			return &damagedError{problem.Error}
		}
		return errors.New(problem.Error)
	}
	if read == nil {
		return nil
	}
	return read(response.Body)
}

// damagedError is store.ErrDamaged as a running server has said it.
type damagedError struct{ text string }

// Error is the server's text.
func (e *damagedError) Error() string { return e.text }

// Is makes it an ErrDamaged.
func (e *damagedError) Is(target error) bool { return target == store.ErrDamaged }
