package aem_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"midplane/aem"
)

var backends = []string{"io_uring", "epoll", "stdnet"}

// bound is far above what any step takes: it ends a test that hangs.
const bound = 30 * time.Second

// eachLoop runs a test over every back end that this machine has.
func eachLoop(t *testing.T, f func(t *testing.T, l *aem.Loop)) {
	for _, name := range backends {
		t.Run(name, func(t *testing.T) { f(t, newLoop(t, name)) })
	}
}

func newLoop(t testing.TB, backend string) *aem.Loop {
	t.Helper()
	ex, err := aem.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := aem.NewLoop(ex, &aem.LoopConfig{Backend: backend})
	if errors.Is(err, errors.ErrUnsupported) {
		ex.Close()
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// netPair is a connection whose both ends belong to the loop.
func netPair(t testing.TB, l *aem.Loop, network string) (a, b net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "aem")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		addr = filepath.Join(dir, "s")
	}
	ln, err := l.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = l.Dial(t.Context(), network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestNettestConn(t *testing.T) {
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(network, func(t *testing.T) {
				nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
					a, b := netPair(t, l, network)
					return a, b, func() { a.Close(); b.Close() }, nil
				})
			})
		}
	})
}

// certificate is one that signs itself.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"aem"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLS(t *testing.T) {
	cert := certificate(t)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		a, b := netPair(t, l, "tcp")
		server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{cert}})
		client := tls.Client(b, &tls.Config{RootCAs: roots, ServerName: "aem"})
		defer client.Close()
		done := make(chan error, 1)
		go func() {
			_, err := io.Copy(server, server)
			done <- errors.Join(err, server.CloseWrite())
		}()
		want := bytes.Repeat([]byte("encrypted "), 50_000)
		go func() {
			_, _ = client.Write(want)
			_ = client.CloseWrite()
		}()
		_ = client.SetReadDeadline(time.Now().Add(bound))
		got, err := io.ReadAll(client)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %d of %d octets, %v", len(got), len(want), err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		server.Close()
	})
}

// Views that were not closed end with their loop, and whoever waits is told.
func TestLoopCloseEndsViews(t *testing.T) {
	for _, name := range backends {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			ex, err := aem.New(nil)
			if err != nil {
				t.Fatal(err)
			}
			defer ex.Close()
			l, err := aem.NewLoop(ex, &aem.LoopConfig{Backend: name})
			if err != nil {
				t.Skip(err)
			}
			a, _ := netPair(t, l, "tcp")
			ln, err := l.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			errs := make(chan error, 2)
			go func() {
				_, err := a.Read(make([]byte, 1))
				errs <- err
			}()
			go func() {
				_, err := ln.Accept()
				errs <- err
			}()
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				select {
				case err := <-errs:
					if err == nil {
						t.Error("no error")
					}
				case <-time.After(bound):
					t.Fatal("somebody waits still")
				}
			}
			ex.Close()
			settle(t, "goroutines", func() bool { return runtime.NumGoroutine() <= before })
		})
	}
}

// settle waits for a condition.
func settle(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(bound); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", bound, what)
		}
	}
}
