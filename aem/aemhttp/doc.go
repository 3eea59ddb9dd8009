// Package aemhttp gives requests of net/http classes, deadlines and overload control, without changes to handlers.
//
// Handler wraps a handler: each request gets a class of an aem.Executor and runs by its rules. What the class does not take, or gives
// up, is answered with 503 Service Unavailable and Retry-After, at once, by the goroutine of its connection. Serve and Listen stay
// net/http's own, and so do TLS and HTTP/2.
//
//	ex, err := aem.New(&aem.Config{TakeProcs: true})
//	reports, err := ex.Class("reports", aem.ClassConfig{Level: aem.Normal, Nice: 19, Policy: aem.NewestFirst, Deadline: time.Second})
//	health, err := ex.Class("health", aem.ClassConfig{Inline: true})
//	h, err := aemhttp.Handler(mux, aemhttp.Config{Classify: func(r *http.Request) *aem.Class {
//		if strings.HasPrefix(r.URL.Path, "/reports/") {
//			return reports
//		}
//		return health
//	}})
//
// Requests of an inline class run on the goroutine of their connection. Others run on a worker: until it has one, a request is no
// more than a place in a queue. The goroutine of the connection reads the beginning of the body before, and writes the response
// afterwards, so that a slow peer does not occupy a worker (see Config.Buffer).
package aemhttp
