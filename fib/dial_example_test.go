package fib_test

import (
	"fmt"
	"log"
	"net/http"
	"time"

	"midplane/fib"
)

// An HTTP client in FIB blue: connections, routes and name servers are those of blue.
func ExampleDialer() {
	d := &fib.Dialer{FIB: "blue"}
	d.Timeout = 5 * time.Second // all options of net.Dialer are there
	client := http.Client{Transport: &http.Transport{DialContext: d.DialContext}}
	resp, err := client.Get("http://intranet.example.com/")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
}

// The same server for two customers who both use 192.0.2.1.
func ExampleListen() {
	for _, customer := range []string{"blue", "red"} {
		l, err := fib.Listen(customer, "tcp", "192.0.2.1:80")
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			log.Fatal(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, "page of %s\n", customer)
			})))
		}()
	}
	select {}
}
