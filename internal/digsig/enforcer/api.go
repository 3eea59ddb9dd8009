package enforcer

import (
	"time"

	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/gaps"
	"midplane/internal/digsig/gate"
)

// Status is how things stand.
type Status struct {
	Mode        string       `json:"mode"` // enforce, permissive, learn; off by the kernel's command line
	Why         string       `json:"why"`  // where the mode is from: policy, command, configuration, kernel command line
	Generation  uint64       `json:"generation"`
	Policy      uint64       `json:"policy"`      // version
	Revocations uint64       `json:"revocations"` // serial
	Keys        int          `json:"keys"`
	Manifests   int          `json:"manifests"`
	StoreError  string       `json:"store_error,omitempty"` // why the store was not taken; what was in force stays
	LastGood    bool         `json:"last_good,omitempty"`   // what is in force is a copy of a store that was good
	Supervisor  Supervisor   `json:"supervisor"`
	Worker      int          `json:"worker"` // process
	Started     time.Time    `json:"started"`
	Marks       []Marked     `json:"marks"`
	Stats       Stats        `json:"stats"`
	Tier        gaps.Tier    `json:"tier"`
	NotHigher   []string     `json:"not_higher,omitempty"` // why the tier is not a higher one
	Kernel      *Kernel      `json:"kernel,omitempty"`     // in tier bpf-lsm
	Gaps        []gaps.Gap   `json:"gaps"`
	Earlier     *CheckReport `json:"earlier,omitempty"` // what ran before, and would be denied
}

// Kernel is what decides in the kernel.
type Kernel struct {
	Mode     string `json:"mode"` // off, permissive, enforce
	Grants   int    `json:"grants"`
	Denied   uint64 `json:"denied"`   // or, in permissive mode, would have been; since the gate was made
	Lost     uint64 `json:"lost"`     // denials that are in no log
	Unhanded uint64 `json:"unhanded"` // verdicts that the kernel did not take
}

// Supervisor is what the worker was told of its supervisor.
type Supervisor struct {
	PID      int       `json:"pid"`
	Guardian string    `json:"guardian"` // who goes on when the supervisor is killed: worker, and guardian if even both may be
	Restarts []Restart `json:"restarts,omitempty"`
	Total    int       `json:"total"` // restarts
}

// Restart is one end of a worker.
type Restart struct {
	Time   time.Time `json:"time"`
	PID    int       `json:"pid"`
	Why    string    `json:"why"`
	Denied int       `json:"denied"` // questions that it had read and not answered
}

// Marked is a file system that is watched, or why not.
type Marked struct {
	Mount     string `json:"mount"`
	Dev       string `json:"dev"`
	Type      string `json:"type"`
	Place     string `json:"place"`
	Namespace string `json:"namespace,omitempty"` // of mounts; empty: the enforcer's
	Err       string `json:"err,omitempty"`

	layers []string // of an overlay
}

// Stats are counters.
type Stats struct {
	Gate      gate.Stats  `json:"gate"`
	Audit     audit.Stats `json:"audit"`
	Events    uint64      `json:"events"`
	Own       uint64      `json:"own"`       // of the enforcer itself
	Gone      uint64      `json:"gone"`      // whose task was killed while it waited
	Unopened  uint64      `json:"unopened"`  // denied by the kernel, as it could not open the file for the enforcer
	Overflows uint64      `json:"overflows"` // there can be none
	MarkFails uint64      `json:"mark_fails"`
	Enrolled  uint64      `json:"enrolled"` // verdicts by an fs-verity digest that was known, without reading
}

// Explanation is what would be decided about a file, and why.
type Explanation struct {
	Path     string             `json:"path"`
	Verdicts map[string]Opinion `json:"verdicts"` // by use: exec, interp, lib, script, check, open
	Cached   bool               `json:"cached"`
	Watched  string             `json:"watched"` // how its file system is
}

// Opinion is a verdict in words.
type Opinion struct {
	Allow   bool   `json:"allow"`
	Reason  string `json:"reason"`
	Detail  string `json:"detail"`
	Digest  string `json:"digest,omitempty"`
	Key     string `json:"key,omitempty"`
	Name    string `json:"name,omitempty"`
	Version uint64 `json:"version,omitempty"`
	Carrier string `json:"carrier,omitempty"`
}

// Reload is what a reload did.
type Reload struct {
	Generation uint64       `json:"generation"`
	Kept       string       `json:"kept,omitempty"`  // a list in the store that is older than the one in force, which stays
	Check      *CheckReport `json:"check,omitempty"` // what runs and is denied from now on
}

// CheckReport says what runs, or is mapped by what runs, and would be denied.
type CheckReport struct {
	Files     int      `json:"files"`     // that were looked at
	Processes int      `json:"processes"` // whose files they are
	Denied    []Denied `json:"denied"`
}

// Denied is one file of a CheckReport.
type Denied struct {
	Path   string `json:"path"`
	Use    string `json:"use"` // exec, interp or lib
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	PIDs   []int  `json:"pids"`             // at most 16
	Wanted bool   `json:"wanted,omitempty"` // it is denied because somebody revoked it
}

// request and reply are the lines of the control socket.
type request struct {
	Op    string `json:"op"` // status, mode, reload, explain, check, events, stop
	Mode  string `json:"mode,omitempty"`
	Path  string `json:"path,omitempty"`
	Force bool   `json:"force,omitempty"`
}

type reply struct {
	Err     string        `json:"err,omitempty"`
	Status  *Status       `json:"status,omitempty"`
	Reload  *Reload       `json:"reload,omitempty"`
	Explain *Explanation  `json:"explain,omitempty"`
	Check   *CheckReport  `json:"check,omitempty"`
	Event   *audit.Record `json:"event,omitempty"`
}
