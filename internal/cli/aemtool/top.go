package aemtool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	tea "charm.land/bubbletea/v2"

	"midplane/aem/aemview"
)

// Top shows a program.
type Top struct {
	Path     string // the socket of aemview.Serve
	Interval time.Duration
	Count    int  // snapshots, then it ends; 0: until interrupted
	JSON     bool // one snapshot a line
	Live     bool // on a terminal, else as text
	In       io.Reader
	Out      io.Writer
}

var errEnough = errors.New("enough")

// Run shows until ctx ends, the program does, or there were Count snapshots.
func (t *Top) Run(ctx context.Context) error {
	if t.Live && !t.JSON {
		return t.live(ctx)
	}
	var before *aemview.Snapshot
	n := 0
	err := aemview.Watch(ctx, t.Path, t.Interval, func(s *aemview.Snapshot) error {
		var err error
		if t.JSON {
			err = json.NewEncoder(t.Out).Encode(s)
		} else {
			_, err = fmt.Fprintln(t.Out, (&Screen{Now: s, Before: before, Events: true}).String())
		}
		before = s
		if n++; err == nil && n == t.Count {
			err = errEnough
		}
		return err
	})
	if errors.Is(err, errEnough) || ctx.Err() != nil {
		return nil
	}
	return err
}

type (
	snapshotMsg struct{ *aemview.Snapshot }
	endMsg      struct{ error }
)

// model is the screen of Top.
type model struct {
	screen Screen
	frozen bool
	err    error
	path   string
}

func (m model) Init() tea.Cmd { return nil }

func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case snapshotMsg:
		if !m.frozen {
			m.screen.Now, m.screen.Before = msg.Snapshot, m.screen.Now
		}
	case endMsg:
		m.err = msg.error
		return m, tea.Quit
	case tea.WindowSizeMsg:
		m.screen.Width = msg.Width
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "ctrl+c", "esc":
			return m, tea.Quit
		case "e":
			m.screen.Events = !m.screen.Events
		case "space", "p":
			m.frozen = !m.frozen
		}
	}
	return m, nil
}

func (m model) View() tea.View {
	text := "waiting for " + m.path
	if m.screen.Now != nil {
		text = m.screen.String()
	}
	state := ""
	if m.frozen {
		state = "  (frozen)"
	}
	v := tea.NewView(text + "\n" + cut("q quit   e events   space freeze"+state, m.screen.Width))
	v.AltScreen = true
	return v
}

func (t *Top) live(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := tea.NewProgram(model{path: t.Path, screen: Screen{Events: true}}, tea.WithContext(ctx), tea.WithInput(t.In), tea.WithOutput(t.Out))
	done := make(chan struct{})
	n := 0
	go func() {
		defer close(done)
		err := aemview.Watch(ctx, t.Path, t.Interval, func(s *aemview.Snapshot) error {
			p.Send(snapshotMsg{s})
			if n++; n == t.Count {
				return errEnough
			}
			return nil
		})
		if errors.Is(err, errEnough) || ctx.Err() != nil {
			err = nil
		}
		p.Send(endMsg{err})
	}()
	m, err := p.Run()
	interrupted := ctx.Err() != nil
	cancel()
	<-done
	if err != nil && !interrupted && !errors.Is(err, tea.ErrInterrupted) {
		return err
	}
	if m, ok := m.(model); ok {
		return m.err
	}
	return nil
}
