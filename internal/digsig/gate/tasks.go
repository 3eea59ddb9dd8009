package gate

// maxTasks bounds how many executions under way are remembered. One that is forgotten is judged as if it had just begun,
// which allows less, never more.
const maxTasks = 8192

// tasks remembers the interpreter of the script that each task last executed: its event follows in the same execve(2).
type tasks struct {
	then map[int32]Key
	ring [maxTasks]int32
	next int
}

func (t *tasks) init() { t.then = make(map[int32]Key, maxTasks) }

// executed notes that a task was allowed to execute something that names an interpreter, or nothing (zero).
func (t *tasks) executed(task int32, then Key) {
	if _, ok := t.then[task]; !ok {
		if then == (Key{}) {
			return
		}
		delete(t.then, t.ring[t.next])
		t.ring[t.next] = task
		t.next = (t.next + 1) % maxTasks
	}
	t.then[task] = then
}

// expects says whether the script that task executes names file k as its interpreter.
func (t *tasks) expects(task int32, k Key) bool { return k != Key{} && t.then[task] == k }
