package aem_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"midplane/aem"
)

// A connection as straight-line code on its loop: it waits for data, for room, and for a time.
func TestDialogues(t *testing.T) {
	eachLoop(t, func(t *testing.T, l *aem.Loop) {
		inline := classOf(t, l, "inline", aem.ClassConfig{Inline: true})
		timeouts := make(chan error, 10)
		serve := func(r *aem.Routine, d *aem.Dialogue) error {
			buf := make([]byte, 4096)
			for {
				n, err := d.Read(buf, time.Minute)
				switch {
				case err == io.EOF:
					return d.Write([]byte("bye"), time.Minute)
				case err != nil:
					return err
				case buf[0] == '?': // be silent until it has waited in vain
					_, err := d.Read(buf, time.Millisecond)
					timeouts <- err
					continue
				}
				if err := d.Write(buf[:n], time.Minute); err != nil {
					return err
				}
			}
		}
		src := aem.Listen("tcp", "127.0.0.1:0")
		e := register(t, l, src, aem.Dialogues(l.Routines(inline), serve), aem.EventConfig{Class: inline})
		must(t, e.Start())
		conn, err := net.Dial("tcp", src.Addr().String())
		must(t, err)
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(bound))
		_, err = conn.Write([]byte("?"))
		must(t, err)
		if err := recv(t, timeouts); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("straight "), 100_000)
		go func() {
			_, _ = conn.Write(want)
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, append(want, "bye"...)) {
			t.Fatalf("%d octets of %d, %v", len(got), len(want)+3, err)
		}
		// One that waits when the loop ends does not keep it.
		other, err := net.Dial("tcp", src.Addr().String())
		must(t, err)
		defer other.Close()
		_, err = other.Write([]byte("x"))
		must(t, err)
		_, err = io.ReadFull(other, make([]byte, 1))
		must(t, err)
	})
}
