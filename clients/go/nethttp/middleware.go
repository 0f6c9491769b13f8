// Package nethttp meters HTTP servers: each request is charged before it is served, and settled by
// how it ended and what it came to. See docs/middleware.md for what all middleware does.
//
//	metered := nethttp.Middleware(client, nethttp.Options{
//		Tenant: nethttp.TenantHeader("X-Tenant"), // set by a proxy in front, never by clients
//		Cost:   nethttp.Fixed(tallygate.Item{Meter: "requests", Amount: 1}),
//	})
//	http.ListenAndServe(address, metered(mux))
package nethttp

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/tallygate/tallygate/clients/go"
	"github.com/tallygate/tallygate/clients/go/metering"
)

// Options say who pays for a request, and what it costs.
type Options struct {
	// Tenant names who pays; an empty one is answered with 400. Trust a header only where something
	// in front of the server sets and strips it. Required.
	Tenant func(*http.Request) string
	// Cost is what the request costs, or an estimate, best the most that it may come to: see
	// [metering.Charge]. None at all passes unmetered. Required, unless ResponseBytes is set.
	Cost func(*http.Request) []tallygate.Item
	// Exempt lets requests pass unmetered, as health checks.
	Exempt func(*http.Request) bool
	// OperationID names the call; never take it from a client's header as it stands. Without it a
	// random one is made.
	OperationID func(*http.Request) string
	// Context is stored with each event.
	Context func(*http.Request) tallygate.EventContext
	// Charged says which statuses are charged: those below 400, unless set.
	Charged func(status int) bool
	// ResponseBytes charges the body's bytes too.
	ResponseBytes *ResponseBytes
	// TTL is how long a reservation lasts when this process dies; 60 s unless set.
	TTL time.Duration
	// Consume charges by one call before the request is served; failures are refunded.
	Consume bool
	// KeepFailures has failed requests that were consumed stay charged.
	KeepFailures bool
	// Fields say more about the limits in the RateLimit headers.
	Fields metering.Fields
	// NoHeaders leaves the RateLimit headers out.
	NoHeaders bool
	// Challenge is the WWW-Authenticate of a 401 that answers requests without a tenant.
	Challenge string
	// Answer writes the response to a request that is not served, in place of the problem document.
	// The headers but its Content-Type are set.
	Answer func(http.ResponseWriter, *http.Request, Problem)
	// Failed is told of errors in asking and in settling; they are logged unless it is set.
	Failed func(context.Context, error)
}

// ResponseBytes is the meter of a response's body.
type ResponseBytes struct {
	// Meter is the meter's name in the catalog.
	Meter string
	// Reserve is the estimate that is held before the request is served.
	Reserve int64
}

// TenantHeader takes the tenant from a request header.
func TenantHeader(name string) func(*http.Request) string {
	return func(r *http.Request) string { return r.Header.Get(name) }
}

// Fixed is the same cost for every request.
func Fixed(items ...tallygate.Item) func(*http.Request) []tallygate.Item {
	return func(*http.Request) []tallygate.Item { return items }
}

// ChargeFrom returns the charge of a request, to say what it came to; nil where it is not metered.
func ChargeFrom(r *http.Request) *metering.Charge { return metering.FromContext(r.Context()) }

// Middleware returns what wraps a handler. It panics where Options lack what is required, as it is
// called when a server starts.
func Middleware(client *tallygate.Client, options Options) func(http.Handler) http.Handler {
	switch {
	case options.Tenant == nil:
		panic("tallygate/nethttp: Options.Tenant is required")
	case options.Cost == nil && options.ResponseBytes == nil:
		panic("tallygate/nethttp: Options.Cost is required")
	case options.Consume && options.ResponseBytes != nil:
		panic("tallygate/nethttp: what is consumed before cannot be measured: ResponseBytes")
	}
	if options.Charged == nil {
		options.Charged = func(status int) bool { return status < http.StatusBadRequest }
	}
	if options.Failed == nil {
		options.Failed = logged
	}
	if bytes := options.ResponseBytes; bytes != nil {
		units := map[string]string{bytes.Meter: "content-bytes"}
		for meter, unit := range options.Fields.QuotaUnits {
			units[meter] = unit
		}
		options.Fields.QuotaUnits = units
	}
	return func(next http.Handler) http.Handler {
		return &metered{client, &options, next}
	}
}

type metered struct {
	client  *tallygate.Client
	options *Options
	next    http.Handler
}

// ServeHTTP asks for the charge, has the request served, and settles when it has ended.
func (m *metered) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	options := m.options
	if options.Exempt != nil && options.Exempt(r) {
		m.next.ServeHTTP(w, r)
		return
	}
	tenant := options.Tenant(r)
	if tenant == "" {
		m.refuse(w, r, tenantMissing(options.Challenge), tallygate.Decision{})
		return
	}
	ask := m.ask(r, tenant)
	if len(ask.Items) == 0 {
		m.next.ServeHTTP(w, r)
		return
	}
	charge, err := metering.Begin(r.Context(), m.client, ask)
	if err != nil {
		m.unserved(w, r, err)
		return
	}
	m.serve(w, r, charge)
}

func (m *metered) ask(r *http.Request, tenant string) metering.Ask {
	options := m.options
	ask := metering.Ask{
		Tenant: tenant, TTL: options.TTL,
		Consume: options.Consume, KeepFailures: options.KeepFailures,
	}
	if options.Cost != nil {
		ask.Items = append(ask.Items, options.Cost(r)...)
	}
	if bytes := options.ResponseBytes; bytes != nil {
		ask.Items = append(ask.Items, tallygate.Item{Meter: bytes.Meter, Amount: bytes.Reserve})
	}
	if options.OperationID != nil {
		ask.OperationID = options.OperationID(r)
	}
	if options.Context != nil {
		ask.Context = options.Context(r)
	}
	return ask
}

// serve has the request served under its charge. Settling comes after: net/http sends the last of
// the response when the handler has returned, which must wait for nobody.
func (m *metered) serve(w http.ResponseWriter, r *http.Request, charge *metering.Charge) {
	ctx := metering.NewContext(r.Context(), charge)
	out := &writer{
		ResponseWriter: w,
		begin:          func() { m.tell(w.Header(), charge.Decision()) },
		bodiless:       r.Method == http.MethodHead,
	}
	returned := false
	defer func() {
		succeeded := returned && m.succeeded(r.Context(), out)
		if bytes := m.options.ResponseBytes; bytes != nil && succeeded {
			if err := charge.Set(bytes.Meter, out.bytes); err != nil {
				m.options.Failed(ctx, err)
			}
		}
		m.client.Background(func() {
			if err := charge.End(ctx, succeeded); err != nil {
				m.options.Failed(ctx, err)
			}
		})
	}()
	m.next.ServeHTTP(out, r.WithContext(ctx))
	returned = true
	if r.Context().Err() == nil {
		out.started(http.StatusOK) // net/http answers so where the handler has written nothing.
	}
}

// succeeded tells whether a request whose handler has returned is charged. Of one whose client has
// left, what was begun is.
func (m *metered) succeeded(ctx context.Context, out *writer) bool {
	if out.status == 0 {
		return ctx.Err() == nil
	}
	return m.options.Charged(out.status)
}

// tell writes the RateLimit headers; the app's own of these names are replaced.
func (m *metered) tell(header http.Header, decision tallygate.Decision) {
	header.Del("RateLimit-Policy")
	header.Del("RateLimit")
	if m.options.NoHeaders {
		return
	}
	policy, limit := m.options.Fields.Of(decision, time.Now())
	if limit != "" {
		header.Set("RateLimit-Policy", policy)
		header.Set("RateLimit", limit)
	}
}

func logged(ctx context.Context, err error) {
	attributes := []any{slog.String("error", err.Error())}
	var failure *tallygate.Error
	if errors.As(err, &failure) {
		attributes = []any{
			slog.String("code", failure.Code.String()), slog.String("reason", failure.Reason),
			slog.String("field", failure.Field), slog.String("operation_id", failure.OperationID),
		}
	}
	slog.WarnContext(ctx, "tallygate: metering failed", attributes...)
}
