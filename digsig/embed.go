package digsig

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"midplane/internal/digsig/elfsig"
)

// CannotEmbedError says why an ELF file takes no embedded signature; a manifest may list it.
type CannotEmbedError = elfsig.CannotEmbedError

// Template is what a signer says of a file besides its content.
type Template struct {
	Name    string    // of the program or package; may be empty
	Version uint64    // grows with each release of Name
	Roles   Role      // 0: DefaultRoles
	Issued  time.Time // cut to whole seconds; must be given
	Expires time.Time // zero: never
}

func (t Template) statement(kind Kind, roles Role, size int64, digest [32]byte) *Statement {
	if t.Roles != 0 {
		roles = t.Roles
	}
	st := &Statement{Digest: digest, Size: uint64(size), Kind: kind, Name: t.Name, Version: t.Version, Roles: roles, Issued: t.Issued.UTC().Truncate(time.Second)}
	if !t.Expires.IsZero() {
		st.Expires = t.Expires.UTC().Truncate(time.Second)
	}
	return st
}

// DefaultRoles returns the kind of a file and the roles that fit it: programs are for exec, and for lib too when they can be
// mapped so; shared libraries are for lib; object files are for lib, as linkers open them; scripts for
// script; kernel modules for module; anything else for data.
func DefaultRoles(file Content, size int64) (Kind, Role, error) {
	kind, err := sniff(file, size)
	if err != nil {
		return 0, 0, err
	}
	switch kind {
	case KindScript:
		return kind, RoleScript, nil
	case KindFile:
		return kind, RoleData, nil
	}
	info, err := elfsig.Find(file, size)
	var bad *elfsig.SlotError
	switch {
	case err != nil && !errors.As(err, &bad):
		return kind, RoleData, nil
	case info.Exec:
		return kind, RoleExec, nil
	case info.Dynamic && info.Interp:
		return kind, RoleExec | RoleLib, nil
	case info.Dynamic:
		return kind, RoleLib | RoleExec, nil // ld.so and programs that are static and relocatable look like libraries
	case info.Module:
		return kind, RoleModule, nil
	case info.Reloc:
		return kind, RoleLib, nil // a linker opens it
	}
	return kind, RoleData, nil
}

// StatementOf reads a file and returns the statement about all of it, for SignStatement or a manifest.
func StatementOf(ctx context.Context, file Content, size int64, t Template) (*Statement, error) {
	kind, roles, err := DefaultRoles(file, size)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	if err := hashRange(ctx, h, file, size); err != nil {
		return nil, err
	}
	st := t.statement(kind, roles, size, [32]byte(h.Sum(nil)))
	return st, st.Validate()
}

// Embed writes a signed copy of an ELF file to w. A signature that is there is replaced. It fails with *CannotEmbedError
// when the file has no place for one or something would no longer work. What is written is not complete before Embed returns.
func Embed(ctx context.Context, w io.WriterAt, file Content, size int64, t Template, signers ...*Signer) (*Statement, error) {
	plan, err := elfsig.Embed(file, size)
	if errors.Is(err, elfsig.ErrNotELF) {
		err = &CannotEmbedError{Why: "it is not an ELF file"}
	}
	if err != nil {
		return nil, err
	}
	if uint64(plan.Size()) > 1<<62 {
		return nil, fmt.Errorf("a file of %d octets", plan.Size())
	}
	_, roles, err := DefaultRoles(file, size)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	if err := hashRange(ctx, io.MultiWriter(h, io.NewOffsetWriter(w, 0)), plan.Apply(file), plan.Size()); err != nil {
		return nil, err
	}
	st := t.statement(KindELF, roles, plan.Size(), [32]byte(h.Sum(nil)))
	env, err := SignStatement(st, signers...)
	if err != nil {
		return nil, err
	}
	if len(env) > elfsig.SlotSize {
		return nil, fmt.Errorf("the envelope has %d octets, the slot %d: want fewer signatures or a shorter name", len(env), elfsig.SlotSize)
	}
	if _, err := w.WriteAt(env, plan.Slot); err != nil {
		return nil, err
	}
	return st, nil
}

// Remove writes a copy of an ELF file without its embedded signature to w: the file that it was before, to the octet. It
// returns its size. Whether the signature is good is not looked at.
func Remove(ctx context.Context, w io.WriterAt, file Content, size int64) (int64, error) {
	plan, err := elfsig.Remove(file, size)
	if err != nil {
		return 0, err
	}
	return plan.Size(), hashRange(ctx, io.NewOffsetWriter(w, 0), plan.Apply(file), plan.Size())
}
