//go:build sidecar

// Package sidecar holds the middleware beside a real sidecar, which TALLYGATE_TARGET names. Its
// catalog is that of the conformance cases: ten of scarce, a thousand tokens, many egress_bytes.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tallygate/tallygate/clients/go"
	"github.com/tallygate/tallygate/clients/go/grpcserver"
	"github.com/tallygate/tallygate/clients/go/nethttp"
)

const patience = time.Minute

func connect(t *testing.T) (*tallygate.Client, context.Context, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	client, err := tallygate.New(tallygate.WithTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	tenant := fmt.Sprintf("go-%s-%d", strings.ToLower(t.Name()), time.Now().UnixNano())
	return client, ctx, tenant
}

var errSeen = errors.New("seen")

// await waits until the sidecar says that so much of a limit is used, as it tells by itself.
func await(ctx context.Context, t *testing.T, client *tallygate.Client, tenant, limit string, used int64) {
	t.Helper()
	var last tallygate.Quota
	err := client.Watch(ctx, tallygate.QuotaRequest{Tenant: tenant}, func(now tallygate.Quota) error {
		last = now
		for _, each := range now.Limits {
			if each.LimitID == limit && each.Used == used {
				return errSeen
			}
		}
		return nil
	})
	if !errors.Is(err, errSeen) {
		t.Fatalf("%s never came to %d: %v: %+v", limit, used, err, last)
	}
}

func get(t *testing.T, url, tenant string) *http.Response {
	t.Helper()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Tenant", tenant)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	return response
}

// A server is limited exactly: 429 with its headers at the limit, and failures cost nothing.
func TestHTTP(t *testing.T) {
	client, ctx, tenant := connect(t)
	metered := nethttp.Middleware(client, nethttp.Options{
		Tenant: nethttp.TenantHeader("X-Tenant"),
		Cost:   nethttp.Fixed(tallygate.Item{Meter: "scarce", Amount: 4}),
	})
	server := httptest.NewServer(metered(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/fails" {
				w.WriteHeader(http.StatusInternalServerError)
			}
		},
	)))
	defer server.Close()
	if response := get(t, server.URL+"/fails", tenant); response.StatusCode != 500 {
		t.Errorf("was %v", response)
	}
	await(ctx, t, client, tenant, "ten", 0)
	for range 2 {
		response := get(t, server.URL, tenant)
		if response.StatusCode != 200 || response.Header.Get("RateLimit-Policy") != `"ten";q=10` {
			t.Errorf("was %v", response)
		}
	}
	await(ctx, t, client, tenant, "ten", 8)
	refused := get(t, server.URL, tenant)
	told := regexp.MustCompile(`^"ten";r=2;t=(\d+)$`).FindStringSubmatch(refused.Header.Get("RateLimit"))
	if refused.StatusCode != 429 || told == nil || told[1] != refused.Header.Get("Retry-After") {
		t.Errorf("was %v", refused)
	}
	await(ctx, t, client, tenant, "ten", 8)
}

// A response that streams is charged by the bytes that it came to.
func TestStreamedHTTP(t *testing.T) {
	client, ctx, tenant := connect(t)
	metered := nethttp.Middleware(client, nethttp.Options{
		Tenant:        nethttp.TenantHeader("X-Tenant"),
		ResponseBytes: &nethttp.ResponseBytes{Meter: "egress_bytes", Reserve: 1 << 20},
	})
	server := httptest.NewServer(metered(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				_, _ = io.WriteString(w, strings.Repeat("x", 1000))
				w.(http.Flusher).Flush()
			}
		},
	)))
	defer server.Close()
	response := get(t, server.URL, tenant)
	if policy := response.Header.Get("RateLimit-Policy"); policy != `"egress";q=1000000000;qu="content-bytes"` {
		t.Errorf("was %s", policy)
	}
	await(ctx, t, client, tenant, "egress", 100_000)
}

// gRPC calls are limited alike; one that its client leaves is charged by what was sent.
func TestGRPC(t *testing.T) {
	client, ctx, tenant := connect(t)
	meter := grpcserver.New(client, grpcserver.Options{
		Tenant: grpcserver.TenantMetadata("x-tenant"),
		Cost: func(_ context.Context, method string, _ any) []tallygate.Item {
			if strings.HasSuffix(method, "/Check") {
				return []tallygate.Item{{Meter: "scarce", Amount: 5}}
			}
			return nil
		},
		Messages: &grpcserver.Messages{Meter: "tokens", Reserve: 100, Count: grpcserver.Sent},
	})
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(meter.Unary()), grpc.ChainStreamInterceptor(meter.Stream()),
	)
	app := health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, app)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	conn, err := grpc.NewClient(
		listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	stub := grpc_health_v1.NewHealthClient(conn)
	called := metadata.AppendToOutgoingContext(ctx, "x-tenant", tenant)
	request := &grpc_health_v1.HealthCheckRequest{}
	if _, err := stub.Check(called, &grpc_health_v1.HealthCheckRequest{Service: "none"}); err == nil {
		t.Error("it was served")
	}
	await(ctx, t, client, tenant, "ten", 0)
	for range 2 {
		if _, err := stub.Check(called, request); err != nil {
			t.Error(err)
		}
	}
	await(ctx, t, client, tenant, "ten", 10)
	if _, err := stub.Check(called, request); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("was %v", err)
	}
	watching, leave := context.WithCancel(called)
	stream, err := stub.Watch(watching, request)
	if err != nil {
		t.Fatal(err)
	}
	for _, next := range []grpc_health_v1.HealthCheckResponse_ServingStatus{2, 1, 2} {
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		app.SetServingStatus("", next)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	leave()
	await(ctx, t, client, tenant, "tokens", 4)
}
