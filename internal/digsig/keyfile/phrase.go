package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/term"
)

// CredentialName is the systemd credential that is read when nothing else is asked for and the service has it
// (LoadCredential= or LoadCredentialEncrypted=).
const CredentialName = "midplane-digsig-passphrase"

// Terminal is where a passphrase is asked for.
type Terminal interface {
	// Ask writes the prompt and reads a line that is not shown. ErrNoTerminal when there is none.
	Ask(prompt string) ([]byte, error)
}

// ErrNoTerminal says that there is nobody to ask.
var ErrNoTerminal = errors.New("no terminal to ask for a passphrase at: name where it is (fd:N, env:NAME, file:PATH or credential:NAME)")

// Source makes a Phrase of what the command line says:
//
//	ask              from the terminal
//	fd:N             first line that file descriptor N gives
//	env:NAME         the environment variable
//	file:PATH        first line of a file that only its owner can read
//	credential:NAME  file NAME in the directory that systemd gives a service ($CREDENTIALS_DIRECTORY)
//	(empty)          the credential midplane-digsig-passphrase if there is one, else the terminal
//
// Each gives the same passphrase when it is asked again, except ask, which asks again. A line ends before its newline
// (or carriage return and newline).
func Source(spec string, t Terminal) (Phrase, error) {
	kind, arg, colon := strings.Cut(spec, ":")
	if colon && arg == "" {
		return nil, fmt.Errorf("passphrase source %q: nothing behind the colon", spec)
	}
	switch {
	case spec == "":
		if path, err := credential(CredentialName); err == nil {
			if _, err := os.Stat(path); err == nil {
				return fromFile(path, false), nil
			}
		}
		return ask(t), nil
	case spec == "ask":
		return ask(t), nil
	case kind == "fd":
		n, err := strconv.Atoi(arg)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("passphrase source %q: want fd: and the number of an open file descriptor", spec)
		}
		return once(func() ([]byte, error) { return fromFD(n) }), nil
	case kind == "env":
		return func(string) ([]byte, error) {
			v, ok := os.LookupEnv(arg)
			if !ok {
				return nil, fmt.Errorf("passphrase: environment variable %s is not set", arg)
			}
			return []byte(v), nil
		}, nil
	case kind == "file":
		return fromFile(arg, true), nil
	case kind == "credential":
		path, err := credential(arg)
		if err != nil {
			return nil, err
		}
		return fromFile(path, false), nil
	}
	return nil, fmt.Errorf("passphrase source %q: want ask, fd:N, env:NAME, file:PATH or credential:NAME", spec)
}

func ask(t Terminal) Phrase {
	return func(what string) ([]byte, error) {
		if t == nil {
			return nil, ErrNoTerminal
		}
		return t.Ask("Passphrase of " + what + ": ")
	}
}

// once keeps what can be read a single time only, since one command may open several keys.
func once(read func() ([]byte, error)) Phrase {
	var got []byte
	var err error
	done := false
	return func(string) ([]byte, error) {
		if !done {
			got, err = read()
			done = true
		}
		return bytes.Clone(got), err
	}
}

func fromFD(n int) ([]byte, error) {
	f := os.NewFile(uintptr(n), fmt.Sprintf("file descriptor %d", n))
	if f == nil {
		return nil, fmt.Errorf("passphrase: file descriptor %d is not open", n)
	}
	defer f.Close()
	return firstLine(f)
}

func fromFile(path string, check bool) Phrase {
	return func(string) ([]byte, error) {
		f, err := open(path)
		if err != nil {
			return nil, fmt.Errorf("passphrase: %w", err)
		}
		defer f.Close()
		if check {
			if err := private(f); err != nil {
				return nil, fmt.Errorf("passphrase file %s: %w", path, err)
			}
		}
		return firstLine(f)
	}
}

// credential is the path of a systemd credential; its name must not lead out of the directory.
func credential(name string) (string, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return "", fmt.Errorf("credential %s: $CREDENTIALS_DIRECTORY is not set; only a service of systemd has credentials", name)
	}
	if name != filepath.Base(name) || name == "." || name == ".." {
		return "", fmt.Errorf("credential %q: want a name without slashes", name)
	}
	return filepath.Join(dir, name), nil
}

// firstLine reads octet by octet, so that what follows stays for others.
func firstLine(r io.Reader) ([]byte, error) {
	line := make([]byte, 0, maxPhrase)
	var b [1]byte
	for {
		n, err := r.Read(b[:])
		if n == 1 && b[0] == '\n' || err == io.EOF {
			line, _ = bytes.CutSuffix(line, []byte{'\r'})
			if len(line) == 0 {
				return nil, errors.New("passphrase: the first line is empty")
			}
			return line, nil
		}
		if err != nil {
			clear(line)
			return nil, fmt.Errorf("passphrase: %w", err)
		}
		if n == 1 {
			if len(line) == maxPhrase {
				clear(line)
				return nil, fmt.Errorf("passphrase: the first line is longer than %d octets", maxPhrase)
			}
			line = append(line, b[0])
		}
	}
}

// TTY is the terminal that controls this process.
type TTY struct {
	// Done, when it is not nil, ends the waiting for a user when it is closed: a program that catches SIGINT needs it.
	Done <-chan struct{}
}

func (t TTY) Ask(prompt string) ([]byte, error) {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, ErrNoTerminal
	}
	defer f.Close()
	fd := int(f.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, ErrNoTerminal
	}
	if _, err := f.WriteString(prompt); err != nil {
		return nil, err
	}
	type answer struct {
		line []byte
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		got <- answer{line, err}
	}()
	var a answer
	select {
	case a = <-got:
	case <-t.Done:
		a.err = errors.Join(errors.New("passphrase: interrupted"), term.Restore(fd, state))
	}
	_, _ = f.WriteString("\n") // the user's own went unseen
	return a.line, a.err
}
