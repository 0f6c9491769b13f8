package tallygate

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tallygate/tallygate/clients/go/tallygatepb"
)

// serviceConfig is the same in every language: what is retried, how often and with what budget.
//
//go:embed service_config.json
var serviceConfig string

// A sidecar is on the same host: it is back soon, and asking costs little.
const (
	connectDelayMin = 50 * time.Millisecond
	connectDelayMax = time.Second
	connectTimeout  = time.Second
)

// Client is a connection to a sidecar. It is safe for use by several goroutines at once.
type Client struct {
	settings settings
	conn     *grpc.ClientConn
	quota    tallygatepb.QuotaServiceClient
	usage    tallygatepb.UsageServiceClient
	counters counters
	buffer   *Buffer

	// life ends with the client, and all that runs beside calls with it.
	life       context.Context
	end        context.CancelFunc
	mu         sync.Mutex // Nothing is begun beside calls once ending is set.
	ending     bool
	beside     sync.WaitGroup
	background sync.WaitGroup

	closed  atomic.Bool
	closing sync.Once
	failure error
}

// New makes a client. It connects with the first call, so that an absent sidecar is no error here.
func New(options ...Option) (*Client, error) {
	chosen := settings{timeout: DefaultTimeout, policy: Closed, retry: true}
	for _, option := range options {
		option(&chosen)
	}
	if chosen.target == "" {
		chosen.target = os.Getenv("TALLYGATE_TARGET")
	}
	if chosen.target == "" {
		chosen.target = DefaultTarget
	}
	if err := chosen.check(); err != nil {
		return nil, err
	}
	client := &Client{settings: chosen}
	client.life, client.end = context.WithCancel(context.Background())
	conn, err := grpc.NewClient(chosen.target, client.dialOptions()...)
	if err != nil {
		client.end()
		return nil, invalid("target", err.Error(), "")
	}
	client.conn = conn
	client.quota = tallygatepb.NewQuotaServiceClient(conn)
	client.usage = tallygatepb.NewUsageServiceClient(conn)
	if chosen.buffer != nil {
		client.buffer, err = newBuffer(client, *chosen.buffer)
		if err != nil {
			client.end()
			_ = conn.Close()
			return nil, err
		}
	}
	return client, nil
}

func (s *settings) check() error {
	if !strings.HasPrefix(s.target, "unix:") && !strings.Contains(s.target, ":") {
		return invalid("target", fmt.Sprintf("%q is neither unix:PATH nor HOST:PORT", s.target), "")
	}
	if s.timeout <= 0 {
		return invalid("timeout", "must be above 0", "")
	}
	if s.policy != Open && s.policy != Closed {
		return invalid("on_absent", fmt.Sprintf("%q is neither open nor closed", s.policy), "")
	}
	return nil
}

func (c *Client) dialOptions() []grpc.DialOption {
	secure := insecure.NewCredentials()
	if c.settings.tls != nil {
		secure = credentials.NewTLS(c.settings.tls)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(secure),
		grpc.WithUserAgent(sdk),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(), // A sidecar is never behind one.
		grpc.WithStatsHandler(attemptCounter{}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: connectDelayMin, Multiplier: 2, Jitter: 0.2, MaxDelay: connectDelayMax,
			},
			MinConnectTimeout: connectTimeout,
		}),
	}
	if !c.settings.retry {
		options = append(options, grpc.WithDisableRetry())
	}
	return append(options, c.settings.dialling...)
}

// Buffer returns the client's buffer, nil where it has none.
func (c *Client) Buffer() *Buffer { return c.buffer }

// Close waits for what [Client.Background] runs and sends what the buffer holds, for as long as ctx
// allows, and ends the connection. Calls made after it return [ErrClosed]. What could not be sent is
// reported as an [*UnsentError]. Only the first call does anything; others wait for it and return
// the same.
func (c *Client) Close(ctx context.Context) error {
	c.closing.Do(func() {
		c.mu.Lock()
		c.ending = true
		c.mu.Unlock()
		c.awaitBackground(ctx)
		c.closed.Store(true)
		if c.buffer != nil {
			c.failure = c.buffer.close(ctx)
		}
		c.end()
		c.beside.Wait()
		c.failure = errors.Join(c.failure, c.conn.Close())
	})
	return c.failure
}

// Background runs a function on a goroutine of its own, and has [Client.Close] wait for it. It is
// for settling what a request has cost once its response is out, as the middleware does. When the
// client is closing already, the function runs before Background returns.
func (c *Client) Background(run func()) {
	c.mu.Lock()
	if c.ending {
		c.mu.Unlock()
		run()
		return
	}
	c.background.Add(1)
	c.mu.Unlock()
	go func() {
		defer c.background.Done()
		run()
	}()
}

func (c *Client) awaitBackground(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		c.background.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// begin runs what goes on beside calls until it ends by itself or with the client's life.
func (c *Client) begin(run func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return
	}
	c.beside.Add(1)
	go func() {
		defer c.beside.Done()
		run()
	}()
}
