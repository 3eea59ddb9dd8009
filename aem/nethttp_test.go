package aem_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"midplane/aem"
)

// TestNetHTTP serves net/http over a loop's listener, with clients whose connections are the loop's too: kept-alive
// connections, bodies of unknown length both ways, hijacked ones, clients that go away, and a graceful end.
func TestNetHTTP(t *testing.T) {
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		ln, err := l.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		mux := http.NewServeMux()
		mux.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
			h := sha256.New()
			n, err := io.Copy(h, r.Body)
			if err != nil {
				t.Error(err)
			}
			fmt.Fprintf(w, "%d %x", n, h.Sum(nil))
		})
		mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
				t.Error(err)
			}
			io.Copy(w, r.Body)
		})
		began, gone := make(chan struct{}), make(chan struct{})
		mux.HandleFunc("/wait", func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
			close(gone)
		})
		mux.HandleFunc("/raw", func(w http.ResponseWriter, r *http.Request) {
			c, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			line, _ := rw.ReadString('\n')
			fmt.Fprintf(c, "raw %s", line)
		})
		srv := &http.Server{Handler: mux}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ln) }()
		base := "http://" + ln.Addr().String()
		tr := &http.Transport{MaxConnsPerHost: 8, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return l.Dial(ctx, network, addr)
		}}
		client := &http.Client{Transport: tr, Timeout: bound}

		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for j := range 10 {
					body := make([]byte, (i*10+j)*1013)
					rand.Read(body)
					want := fmt.Sprintf("%d %x", len(body), sha256.Sum256(body))
					if got := post(t, client, base+"/sum", bytes.NewReader(body)); string(got) != want {
						t.Errorf("sum: %s, want %s", got, want)
					}
					// Its length is not known beforehand: chunks.
					if got := post(t, client, base+"/echo", struct{ io.Reader }{bytes.NewReader(body)}); !bytes.Equal(got, body) {
						t.Errorf("echo of %d octets: %d others", len(body), len(got))
					}
				}
			})
		}
		wg.Wait()

		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "GET", base+"/wait", nil)
		must(t, err)
		wg.Go(func() {
			if r, err := client.Do(req); err == nil {
				r.Body.Close()
				t.Error("a canceled request was answered")
			}
		})
		recv(t, began)
		cancel()
		recv(t, gone)
		wg.Wait()

		c, err := l.Dial(t.Context(), "tcp", ln.Addr().String())
		must(t, err)
		fmt.Fprintf(c, "GET /raw HTTP/1.1\r\nHost: x\r\n\r\nhello\n")
		if b, err := io.ReadAll(c); err != nil || string(b) != "raw hello\n" {
			t.Errorf("hijacked: %q, %v", b, err)
		}
		c.Close()

		tr.CloseIdleConnections()
		end, stop := context.WithTimeout(context.Background(), bound)
		defer stop()
		must(t, srv.Shutdown(end))
		if err := recv(t, served); err != http.ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
	})
}

func post(t *testing.T, c *http.Client, url string, body io.Reader) []byte {
	r, err := c.Post(url, "application/octet-stream", body)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("%s: %s, %v", url, r.Status, err)
	}
	return b
}
