package nethttp_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/tallygate/tallygate/clients/go"
	"github.com/tallygate/tallygate/clients/go/nethttp"
)

// Charge a request for each call, and the bytes of its response.
func ExampleMiddleware() {
	client, err := tallygate.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close(context.Background())

	metered := nethttp.Middleware(client, nethttp.Options{
		Tenant:        nethttp.TenantHeader("X-Tenant"), // set in front, never by clients
		Cost:          nethttp.Fixed(tallygate.Item{Meter: "requests", Amount: 1}),
		ResponseBytes: &nethttp.ResponseBytes{Meter: "egress_bytes", Reserve: 100},
		Exempt:        func(r *http.Request) bool { return r.URL.Path == "/healthz" },
	})
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, "hello")
	})
	server := httptest.NewServer(metered(hello))
	defer server.Close()

	response, err := http.Get(server.URL + "/healthz")
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = response.Body.Close()
	fmt.Println(response.Status)
	response, err = http.Get(server.URL + "/")
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = response.Body.Close()
	fmt.Println(response.Status)
	// Output:
	// 200 OK
	// 400 Bad Request
}
