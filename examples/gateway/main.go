// Command gateway is an HTTP gateway that stays responsive when far more is asked of it than it can do. Look-ups take microseconds and
// are answered at once, whatever else goes on; reports take milliseconds of processor time, wait in a bounded queue for lowered
// workers, and are refused with 503 and Retry-After when they could not be ready in time; everything below /upstream/ is
// passed on to another server.
//
//	go run ./examples/gateway -listen 127.0.0.1:8080 -upstream http://127.0.0.1:9000
//
//	curl 127.0.0.1:8080/lookup/nl        # a country
//	curl 127.0.0.1:8080/report?rows=5000 # a table, gzip
//	curl 127.0.0.1:8080/classes          # what the classes do
package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"midplane/aem"
	"midplane/aem/aemhttp"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address to listen on")
	upstream := flag.String("upstream", "", "server that /upstream/ is passed on to; empty: none")
	deadline := flag.Duration("deadline", 100*time.Millisecond, "when a report must be ready")
	flag.Parse()
	if err := run(*listen, *upstream, *deadline); err != nil {
		log.Fatal(err)
	}
}

func run(listen, upstream string, deadline time.Duration) error {
	ex, err := aem.New(&aem.Config{TakeProcs: true})
	if err != nil {
		return err
	}
	defer ex.Close()
	srv := &http.Server{Addr: listen}
	if err := setUp(ex, srv, upstream, deadline); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- srv.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(srv.Shutdown(grace), ex.Shutdown(grace))
}

// setUp makes the classes, and srv serve by them.
func setUp(ex *aem.Executor, srv *http.Server, upstream string, deadline time.Duration) error {
	lookups, err := ex.Class("lookups", aem.ClassConfig{Inline: true})
	if err != nil {
		return err
	}
	reports, err := ex.Class("reports", aem.ClassConfig{
		Level: aem.Normal, Nice: 19, Queue: 64, Policy: aem.NewestFirst, Deadline: deadline,
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /lookup/{code}", lookup)
	mux.HandleFunc("GET /report", report)
	mux.HandleFunc("GET /classes", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(ex.Stats())
	})
	if upstream != "" {
		u, err := url.Parse(upstream)
		if err != nil {
			return err
		}
		mux.Handle("/upstream/", http.StripPrefix("/upstream", httputil.NewSingleHostReverseProxy(u)))
	}
	srv.Handler = mux
	return aemhttp.Configure(srv, aemhttp.Config{Classify: func(r *http.Request) *aem.Class {
		switch {
		case r.URL.Path == "/report":
			return reports
		case strings.HasPrefix(r.URL.Path, "/upstream/"):
			return nil // it waits for another server, and computes nothing
		}
		return lookups
	}})
}

var countries = map[string]string{"be": "Belgium", "ca": "Canada", "de": "Germany", "nl": "Netherlands", "se": "Sweden"}

func lookup(w http.ResponseWriter, r *http.Request) {
	name, ok := countries[r.PathValue("code")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	io.WriteString(w, name+"\n")
}

const maxRows = 1_000_000

// report computes a table and compresses it, which takes about a millisecond for 5,000 rows. It gives up when it is late.
func report(w http.ResponseWriter, r *http.Request) {
	rows, err := strconv.Atoi(r.URL.Query().Get("rows"))
	if err != nil || rows < 1 || rows > maxRows {
		http.Error(w, fmt.Sprintf("rows is %q, want 1 to %d", r.URL.Query().Get("rows"), maxRows), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/csv")
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	defer z.Close()
	x := uint64(rows)
	for i := range rows {
		if i%1024 == 0 && r.Context().Err() != nil {
			return
		}
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		fmt.Fprintf(z, "%d,%d,%d\n", i, x%1000, x>>32%1000)
	}
}
