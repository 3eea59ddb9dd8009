package aem_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"midplane/aem"
)

// A class for what must be answered at once, one for what computes.
func Example() {
	ex, err := aem.New(nil) // a server sets TakeProcs
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ex.Close()
	reports, err := ex.Class("reports", aem.ClassConfig{
		Level: aem.Normal, Nice: 19, Queue: 100, Policy: aem.NewestFirst, Deadline: time.Second,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	sum := 0
	err = reports.Do(context.Background(), func(*aem.Ctx) {
		for i := range 1000 {
			sum += i
		}
	})
	fmt.Println(sum, err)
	// Output: 499500 <nil>
}

// Submit costs no allocation when the task is part of something that lives longer.
func ExampleClass_Submit() {
	ex, err := aem.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ex.Close()
	type connection struct {
		aem.Task
		fate chan aem.Fate
	}
	c := &connection{fate: make(chan aem.Fate, 1)}
	c.Arg = c
	c.Run = func(x *aem.Ctx) { fmt.Println("class", x.Class().Name()) }
	c.Done = func(t *aem.Task, f aem.Fate) { t.Arg.(*connection).fate <- f }
	for range 2 {
		if err := ex.Normal().Submit(&c.Task); err != nil {
			fmt.Println(err) // it is overloaded
			return
		}
		fmt.Println(<-c.fate)
	}
	// Output:
	// class normal
	// ran
	// class normal
	// ran
}

// What is refused says so at once.
func ExampleFateOf() {
	ex, err := aem.New(&aem.Config{Workers: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ex.Close()
	small, err := ex.Class("small", aem.ClassConfig{Level: aem.Normal, Queue: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	began, end := make(chan bool), make(chan bool)
	for i := range 3 {
		err := small.Go(func(*aem.Ctx) {
			if i == 0 {
				began <- true
				<-end
			}
		})
		if i == 0 {
			<-began
		}
		fmt.Println(i, aem.FateOf(err), err)
	}
	close(end)
	// Output:
	// 0 open <nil>
	// 1 open <nil>
	// 2 rejected aem: class small: task rejected
}

// A routine waits in the middle, and its loop goes on meanwhile.
func ExampleRoutines() {
	ex, err := aem.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ex.Close()
	class, err := ex.Class("routines", aem.ClassConfig{Inline: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	timers := aem.NewTimers()
	routines := aem.NewRoutines(class, timers, nil)
	defer routines.Close()

	var reply aem.Wait
	ended := false
	routines.Go(context.Background(), func(r *aem.Routine) error {
		for try := 1; ; try++ {
			reply = r.Begin() // here something would be asked for
			err := r.Await(5 * time.Millisecond)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
			fmt.Println("no reply to try", try)
		}
	}, func(err error) {
		fmt.Println("ended with", err)
		ended = true
	})
	for !ended { // the loop
		time.Sleep(max(0, timers.Wait()))
		if timers.Run() > 0 {
			reply.Complete(nil)
		}
	}
	// Output:
	// no reply to try 1
	// ended with <nil>
}
