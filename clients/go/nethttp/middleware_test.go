package nethttp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tallygate/tallygate/clients/go"
	"github.com/tallygate/tallygate/clients/go/internal/fake"
	"github.com/tallygate/tallygate/clients/go/nethttp"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) { os.Exit(fake.Examples(m)) }

var requests = tallygate.Item{Meter: "requests", Amount: 2}

// shop is a real server behind the middleware, and the sidecar that it asks.
type shop struct {
	sidecar *fake.Sidecar
	client  *tallygate.Client
	server  *httptest.Server
}

func open(t *testing.T, limit int64, options nethttp.Options, handler http.HandlerFunc) *shop {
	t.Helper()
	sidecar := fake.Start(t, limit)
	client, err := tallygate.New(
		tallygate.WithTarget(sidecar.Target), tallygate.WithTimeout(patience),
		tallygate.WithoutRetry(),
	)
	if err != nil {
		t.Fatal(err)
	}
	if options.Tenant == nil {
		options.Tenant = nethttp.TenantHeader("X-Tenant")
	}
	if options.Cost == nil {
		options.Cost = nethttp.Fixed(requests)
	}
	if options.Failed == nil {
		options.Failed = func(context.Context, error) {}
	}
	server := httptest.NewUnstartedServer(nethttp.Middleware(client, options)(handler))
	server.Config.ErrorLog = nil
	server.Start()
	t.Cleanup(func() {
		server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := client.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return &shop{sidecar, client, server}
}

func (s *shop) get(t *testing.T, path string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, s.server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Tenant", "acme")
	return do(t, request)
}

func do(t *testing.T, request *http.Request) (*http.Response, string) {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func (s *shop) settled(t *testing.T, used int64, commits int) {
	t.Helper()
	s.sidecar.Await(t, func() bool { return s.sidecar.Calls("Commit") == commits })
	s.sidecar.Await(t, func() bool { return s.sidecar.Used() == used })
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

// A request that is served is charged, and its response says where its caller stands.
func TestServed(t *testing.T) {
	s := open(t, 10, nethttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("RateLimit", "the app's own")
		ok(w, r)
	})
	response, body := s.get(t, "/")
	if response.StatusCode != http.StatusOK || body != "ok" || response.ContentLength != 2 {
		t.Errorf("was %v: %s", response, body)
	}
	if policy := response.Header.Get("RateLimit-Policy"); policy != `"total";q=10` {
		t.Errorf("was %s", policy)
	}
	if limit := response.Header.Get("RateLimit"); limit != `"total";r=8;t=3600` {
		t.Errorf("was %s", limit)
	}
	s.settled(t, 2, 1)
}

// At the limit the answer is 429 with all its fields, and the app does not see the request.
func TestRefused(t *testing.T) {
	s := open(t, 1, nethttp.Options{}, func(http.ResponseWriter, *http.Request) {
		t.Error("the app was asked")
	})
	response, body := s.get(t, "/")
	header := response.Header
	if response.StatusCode != http.StatusTooManyRequests || header.Get("Retry-After") != "2" ||
		header.Get("RateLimit") != `"total";r=1;t=2` ||
		header.Get("Content-Type") != "application/problem+json" ||
		header.Get("Cache-Control") != "no-store" {
		t.Errorf("was %v", response)
	}
	var problem nethttp.Problem
	if err := json.Unmarshal([]byte(body), &problem); err != nil {
		t.Fatal(err)
	}
	if problem.Type != "https://iana.org/assignments/http-problem-types#quota-exceeded" ||
		problem.Status != 429 || problem.Violated[0] != "total" || problem.OperationID == "" ||
		strings.Contains(body, "acme") {
		t.Errorf("was %s", body)
	}
}

// What fails, panics or is cancelled by the app costs nothing.
func TestFailuresAreNotCharged(t *testing.T) {
	s := open(t, 10, nethttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/fails":
			http.Error(w, "no", http.StatusBadGateway)
		case "/panics":
			panic(http.ErrAbortHandler)
		case "/free":
			nethttp.ChargeFrom(r).Cancel()
		}
	})
	s.get(t, "/fails")
	s.get(t, "/free")
	request, _ := http.NewRequest(http.MethodGet, s.server.URL+"/panics", nil)
	request.Header.Set("X-Tenant", "acme")
	if _, err := http.DefaultClient.Do(request); err == nil {
		t.Error("a panic was answered")
	}
	// A request whose connection broke may be sent again, by the HTTP client itself.
	s.sidecar.Await(t, func() bool {
		return s.sidecar.Calls("Release") >= 3 && s.sidecar.Used() == 0
	})
	if s.sidecar.Calls("Commit") != 0 {
		t.Error("it was charged")
	}
}

// A response that streams is passed on piece by piece, and charged by its bytes.
func TestStreamed(t *testing.T) {
	seen := make(chan struct{})
	options := nethttp.Options{ResponseBytes: &nethttp.ResponseBytes{Meter: "egress", Reserve: 100}}
	s := open(t, 1000, options, func(w http.ResponseWriter, r *http.Request) {
		for _, piece := range []string{"first\n", "second\n"} {
			_, _ = io.WriteString(w, piece)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-seen
		}
		_, _ = io.Copy(w, strings.NewReader("third\n"))
	})
	request, _ := http.NewRequest(http.MethodGet, s.server.URL, nil)
	request.Header.Set("X-Tenant", "acme")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	for range 2 {
		lines.Scan() // It comes before the handler goes on.
		seen <- struct{}{}
	}
	for lines.Scan() {
		continue
	}
	s.settled(t, 2+int64(len("first\nsecond\nthird\n")), 1)
	policy := response.Header.Get("RateLimit-Policy")
	if policy != `"total";q=1000` {
		t.Errorf("was %s", policy)
	}
}

// A client that leaves within a response pays for what was sent; one that leaves before, nothing.
func TestClientLeaves(t *testing.T) {
	options := nethttp.Options{ResponseBytes: &nethttp.ResponseBytes{Meter: "egress", Reserve: 100}}
	s := open(t, 1000, options, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/within" {
			_, _ = io.WriteString(w, "12345")
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	})
	for _, path := range []string{"/within", "/before"} {
		ctx, cancel := context.WithCancel(t.Context())
		request, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.server.URL+path, nil)
		request.Header.Set("X-Tenant", "acme")
		if path == "/before" {
			held := s.sidecar.Calls("Reserve")
			go func() {
				s.sidecar.Await(t, func() bool { return s.sidecar.Calls("Reserve") > held })
				cancel()
			}()
		}
		if response, err := http.DefaultClient.Do(request); err == nil {
			cancel()
			_ = response.Body.Close()
		}
		cancel()
	}
	s.sidecar.Await(t, func() bool { return s.sidecar.Calls("Release") == 1 })
	s.settled(t, 7, 1)
}

// What the app says of the cost counts; a meter that is none of the request's is its fault.
func TestCostAfterTheFact(t *testing.T) {
	s := open(t, 100, nethttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
		charge := nethttp.ChargeFrom(r)
		if err := errors.Join(charge.Add("requests", 3), charge.Add("requests", 4)); err != nil {
			t.Error(err)
		}
		if err := charge.Set("tokens", 1); err == nil || !strings.Contains(err.Error(), "tokens") {
			t.Errorf("was %v", err)
		}
		if !charge.Decision().Allowed || charge.OperationID() == "" {
			t.Errorf("was %+v", charge.Decision())
		}
		ok(w, r)
	})
	s.get(t, "/")
	s.settled(t, 7, 1)
}

// In mode consume one call charges, and what fails is refunded by its events.
func TestConsume(t *testing.T) {
	s := open(t, 100, nethttp.Options{Consume: true}, func(w http.ResponseWriter, r *http.Request) {
		if err := nethttp.ChargeFrom(r).Set("requests", 1); err == nil {
			t.Error("what was consumed was set")
		}
		if r.URL.Path == "/fails" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	s.get(t, "/")
	s.get(t, "/fails")
	s.sidecar.Await(t, func() bool { return len(s.sidecar.Refunds()) == 1 })
	if s.sidecar.Calls("Reserve") != 0 || s.sidecar.Calls("CheckAndConsume") != 2 {
		t.Error("it was held")
	}
}

// Requests without a tenant, and those for which there is no decision, are answered as such.
func TestUnserved(t *testing.T) {
	s := open(t, 100, nethttp.Options{}, ok)
	request, _ := http.NewRequest(http.MethodGet, s.server.URL, nil)
	response, body := do(t, request)
	if response.StatusCode != 400 || !strings.Contains(body, "urn:tallygate:problem:tenant-missing") {
		t.Errorf("was %v: %s", response, body)
	}
	for _, each := range []struct {
		code          codes.Code
		reason, field string
		status        int
		problem       string
	}{
		{codes.Unavailable, "OVERLOADED", "", 503, "metering-unavailable"},
		{codes.ResourceExhausted, "TOO_MANY_RESERVATIONS", "", 503, "metering-unavailable"},
		{codes.InvalidArgument, "INVALID_FIELD", "tenant_id", 400, "tenant-invalid"},
		{codes.NotFound, "UNKNOWN_TENANT", "", 403, "tenant-refused"},
		{codes.FailedPrecondition, "TENANT_SUSPENDED", "", 403, "tenant-refused"},
		{codes.NotFound, "UNKNOWN_METER", "", 500, "metering-failed"},
	} {
		state, err := status.New(each.code, "secret").WithDetails(
			&errdetails.ErrorInfo{Reason: each.reason, Domain: "tallygate"},
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
				{Field: each.field},
			}},
		)
		if err != nil {
			t.Fatal(err)
		}
		s.sidecar.Fail("Reserve", state.Err())
		response, body := s.get(t, "/")
		if response.StatusCode != each.status || strings.Contains(body, "secret") ||
			!strings.Contains(body, `"urn:tallygate:problem:`+each.problem+`"`) {
			t.Errorf("%v: was %v: %s", each, response, body)
		}
		retry := response.Header.Get("Retry-After")
		if (each.status == 503) != (retry == "1") {
			t.Errorf("%v: was %q", each, retry)
		}
	}
}

// An app may challenge callers without a tenant, and write its own answers.
func TestOwnAnswer(t *testing.T) {
	s := open(t, 100, nethttp.Options{
		Challenge: "Bearer",
		Exempt:    func(r *http.Request) bool { return r.URL.Path == "/health" },
		Answer: func(w http.ResponseWriter, _ *http.Request, problem nethttp.Problem) {
			w.WriteHeader(problem.Status)
			_, _ = io.WriteString(w, problem.Title)
		},
	}, ok)
	request, _ := http.NewRequest(http.MethodGet, s.server.URL, nil)
	response, body := do(t, request)
	if response.StatusCode != 401 || response.Header.Get("WWW-Authenticate") != "Bearer" ||
		body != "Tenant missing" {
		t.Errorf("was %v: %s", response, body)
	}
	request, _ = http.NewRequest(http.MethodGet, s.server.URL+"/health", nil)
	if response, _ := do(t, request); response.StatusCode != 200 {
		t.Errorf("was %v", response)
	}
	if s.sidecar.Calls("Reserve") != 0 {
		t.Error("it was metered")
	}
}

// A connection that is handed over is the app's, and is charged when its handler ends.
func TestHijacked(t *testing.T) {
	s := open(t, 100, nethttp.Options{}, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\nmine")
		_ = conn.Close()
	})
	conn, err := net.Dial("tcp", s.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: here\r\nX-Tenant: acme\r\n\r\n")
	told, err := io.ReadAll(conn)
	if err != nil || !regexp.MustCompile(`^HTTP/1.1 101 .*\s+mine$`).Match(told) {
		t.Errorf("was %q: %v", told, err)
	}
	s.settled(t, 2, 1)
}
