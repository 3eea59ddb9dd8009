//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"midplane/bench/internal/stat"
	"midplane/digsig"
	"midplane/internal/digsig/enforcer"
)

const victims = 20

func (b *bed) victim(i int) string { return filepath.Join(b.mnt, fmt.Sprintf("victim%d", i)) }

// revocation runs programs until the kernel keeps their verdicts, revokes them one by one, and measures from when the
// enforcer is told to load the list until it says that it is in force; from then on nothing may run.
func (b *bed) revocation() error {
	for i := range victims {
		if err := copyFile(b.files[0], b.victim(i)); err != nil {
			return err
		}
		if err := b.signFile(b.victim(i)); err != nil {
			return err
		}
	}
	stop, err := b.midplane()
	if err != nil {
		return err
	}
	defer stop()
	client := enforcer.Dial(b.cfg.Socket)
	list := &digsig.Revocations{Below: map[string]digsig.Minimum{}}
	var took []float64
	ran := 0
	for i := range victims {
		for range 3 {
			if err := exec.Command(b.victim(i)).Run(); errors.Is(err, syscall.EPERM) {
				return fmt.Errorf("%s does not run before it is revoked", b.victim(i))
			}
		}
		list.Serial, list.Issued = uint64(i+1), time.Now().Truncate(time.Second)
		list.Below[filepath.Base(b.victim(i))] = digsig.Minimum{Version: 2, Why: "bench"}
		signed, err := digsig.SignRevocations(list, b.signer)
		if err != nil {
			return err
		}
		if err := digsig.WriteFile(filepath.Join(b.cfg.Dir, digsig.RevocationsFile), signed, 0o644); err != nil {
			return err
		}
		begin := time.Now()
		if _, err := client.Reload(context.Background(), false); err != nil {
			return err
		}
		took = append(took, time.Since(begin).Seconds()*1000)
		if err := exec.Command(b.victim(i)).Run(); !errors.Is(err, syscall.EPERM) {
			ran++
		}
	}
	worst := 0.0
	for _, t := range took {
		worst = max(worst, t)
	}
	fmt.Printf("\n%d revocations of programs with warm verdicts: in force %.1f ms (median) and %.1f ms (most) after the enforcer was told to load them; %d ran after that\n",
		victims, stat.Median(took), worst, ran)
	return os.Remove(filepath.Join(b.cfg.Dir, digsig.RevocationsFile))
}
