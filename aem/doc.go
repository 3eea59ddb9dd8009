// Package aem runs events by priority and deadline, with bounded response time under overload.
//
// In plain Go, goroutines that compute keep others from the processor for tens of milliseconds, and a server that is offered more
// than it can do makes everybody wait for seconds. An Executor bounds both for an ordinary, unprivileged program: urgent handlers
// find a processor because heavy ones run on few threads of low priority, and what cannot be done in time is not begun.
//
// # Classes
//
// All work has a Class. It says how urgent the work is (Critical, Normal or Background), how much of it may wait, how long, and what
// happens when there is more. A class is of one of three kinds:
//
//   - Inline: the handler runs in Submit, on the caller's goroutine: an event loop's, or the one that serves a connection. For
//     handlers that take microseconds. This is what holds the bound.
//   - Niceness 0 (the default of Critical and Normal): goroutines, as many as Config.Workers. For handlers that wait for
//     something, or compute for less than a millisecond.
//   - Niceness 1 to 19 (19 is the default of Background): goroutines on threads of their own, which the kernel's scheduler
//     ranks below everything else of the process. For handlers that compute for longer. An urgent thread that wakes takes the
//     processor from such a one at once.
//
// Among classes of one niceness levels are strict: nothing of a level begins while a more urgent one has work. Classes of one level
// share the workers by Weight; within a class the task with the earliest deadline is next (EDF). Between nicenesses the kernel
// decides, by its weights of 1024 for niceness 0 and 15 for 19.
//
// # Overload
//
// Every queue is bounded. A task that cannot end by its deadline, going by how long others of its class run, is dropped before it
// begins (Expired). A full queue refuses (Reject) or gives up what waits longest (ShedOldest). NewestFirst does too, and when
// the wait has been above Target for ten times as long, it runs the newest task first: in a queue that stands, order of arrival makes
// all tasks late, and this keeps most in time. Whoever submitted a task always learns its Fate, once: from the error of Submit, or
// through Task.Done.
//
// # What is bounded
//
// A task that was accepted begins, or has its fate, by its deadline, plus 5 ms and what the kernel takes to run the executor's own
// goroutine. A class that always has work waits, until it begins its next task, at most for the other classes of its level to
// use their shares of one longest task for each worker; levels that are less urgent have no such claim, and their tasks
// expire. Memory is bounded by the queues. An inline handler waits for the kernel to run its goroutine: tens of microseconds on a
// machine that has nothing else to do than this program.
//
// # What voids the bound
//
//   - Goroutines outside of the executor that compute. There are no priorities among goroutines: each takes a processor of the
//     runtime (a P) for up to 10 ms at a time. Send such work to Background with Class.Go. Stats().Scheduling shows the damage.
//   - GOMAXPROCS without a spare one. Config.TakeProcs sets it to workers + loops + 2. It is one value for the whole
//     process, so nothing happens without being asked for, and New refuses when somebody else has set it.
//   - Handlers of inline classes that block or compute: they hold up what calls them. The stall detector names them
//     (Config.OnStall), with their stack.
//   - The garbage collector. It marks on all Ps that are idle, at normal priority, and stops who runs several times a cycle; who is
//     stopped then waits for threads of the runtime that compete with the marking. Loops on epoll and io_uring keep their P while
//     lowered workers run and wait little (with Config.TakeProcs, as many loops as Config.Loops): expect some milliseconds for what comes
//     during a cycle. To stop lowered threads it waits until the kernel lets them run: at once on a machine that is this program's
//     own, milliseconds on one that others keep busy (there a niceness of 10 is better than 19). Four things help, and add up: allocate
//     little (nothing here allocates for a task); let Config.HeapBudget make cycles rare and Config.HeapPrefault get its memory beforehand;
//     keep a processor for loops, which takes no privilege (Config.LoopCPUs); and, where the program may, LoopConfig.Realtime. The runtime gives memory
//     of a budget back to the kernel after collections that come before it is used up: those of runtime.GC, and that which it forces after two
//     minutes without one.
//   - A loop with a real-time priority (LoopConfig.Realtime) whose handlers compute, or never end: its processor then does nothing else
//     until the kernel throttles real-time threads (sched(7): for 50 ms after 950 ms of a second), and what of the runtime waits for a
//     thread on that processor waits as long. Such loops are for handlers of microseconds, on machines with at least two processors.
//   - GODEBUG=asyncpreemptoff=1. Loops do not keep their P then.
//   - A cgroup's CPU quota that is used up: the kernel then stops the whole process for the rest of the period, up to 100 ms. Workers
//     are limited to the quota, rounded down, and follow it within about a second; leave room for the rest of the program.
//   - Other processes. Niceness ranks threads within one autogroup (sched(7)) or cgroup. A neighbour outside of it gets its share whatever
//     happens here.
//
// # When not to use it
//
// A server that is never near its capacity, or whose requests only wait for others, needs nothing of this: goroutines are simpler
// and as fast. Work that can be spread over more machines is better spread. Hard real time needs another system. This package does
// not make a program faster: it decides who waits.
//
// # Events
//
// A Loop waits for the kernel (std net, epoll or io_uring) and hands typed events to handlers: timers, streams, packets, signals,
// processes, files, memory pressure, network changes, channels. An Event is registered with a class, disabled, and is
// then started, stopped and shut down, alone or in a Group; its class and its deadline may change while it runs. Handover gives
// the sockets of Streams and Packets to the next program, with all that is queued (hot upgrade).
//
// # Await
//
// A handler that has to wait in the middle is a Routine: straight-line code, a coroutine on its loop. It announces a Wait, starts
// an operation that completes it, and goes on when it is complete, when its deadline has come, or when its context ends. That
// costs about 0.1 us and no thread switch.
//
// # Threads
//
// A thread that is lowered cannot be raised again without privilege, so it belongs to its worker for good and ends with it.
// Nothing else of the program ever runs on it. On systems other than Linux there is no niceness of one thread: workers are plain
// threads there, and a warning is logged.
package aem
