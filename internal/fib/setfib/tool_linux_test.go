package setfib

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"midplane/internal/fib/binding"
	"midplane/internal/lab"
)

// toolMain are the small programs that tests run in FIBs beside unmodified ones.
//
//	fib-get NETWORK ADDRESS [LOCAL]   connects, prints what it reads until the end
//	fib-miss NETWORK ADDRESS          the same where no connection is expected, so that it does not wait for long
//	fib-serve NETWORK ADDRESS TEXT    listens, prints "listening ADDRESS", answers each connection with TEXT
//	fib-identify DIR PID              prints the FIB of a process and how it is known
//	fib-pids DIR FIB                  prints how many processes are in a FIB
//	fib-refresh DIR                   prints what Refresh removed
//	fib-child CMD…                    runs a command as a child, so that it is a grandchild
func toolMain(verb string, args []string) error {
	switch verb {
	case "fib-get":
		return get(args, lab.Patience)
	case "fib-miss":
		return get(args, 300*time.Millisecond)
	case "fib-serve":
		return serveText(args)
	case "fib-identify":
		pid, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		m, err := Identify(args[0], pid)
		if err == nil {
			fmt.Println(m.FIB, m.Name, m.How)
		}
		return err
	case "fib-pids":
		b, err := binding.Find(args[0], args[1])
		if err != nil {
			return err
		}
		pids, err := Pids(args[0], b)
		fmt.Println(len(pids))
		return err
	case "fib-refresh":
		r, err := Refresh(args[0])
		fmt.Println(len(r.Removed))
		return err
	case "fib-child":
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		return cmd.Run()
	}
	return fmt.Errorf("no tool %s", verb)
}

func get(args []string, patience time.Duration) error {
	d := net.Dialer{Timeout: patience}
	if len(args) > 2 {
		a, err := net.ResolveTCPAddr(args[0], args[2])
		if err != nil {
			return err
		}
		d.LocalAddr = a
	}
	c, err := d.Dial(args[0], args[1])
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	fmt.Printf("%s\n", b)
	return err
}

func serveText(args []string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), args[0], args[1])
	if err != nil {
		return err
	}
	fmt.Println("listening", l.Addr())
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		_, _ = io.WriteString(c, strings.Join(args[2:], " "))
		_ = c.Close()
	}
}
