package tallygate

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// DefaultTarget is where a sidecar is looked for when neither an option nor the environment
// variable TALLYGATE_TARGET says otherwise.
const DefaultTarget = "127.0.0.1:50051"

// DefaultTimeout bounds a logical call, its retries included.
const DefaultTimeout = time.Second

// Policy says what a decision is when the sidecar does not answer.
type Policy string

// The policies.
const (
	// Closed returns the error.
	Closed Policy = "closed"
	// Open allows the work, and marks the decision as Local.
	Open Policy = "open"
)

// Hooks are told what happens, for metrics and logs. They run on the goroutine that made the call,
// or on the buffer's: keep them quick. A hook that panics breaks no call.
type Hooks struct {
	// Call is told of each logical call that ended.
	Call func(method string, code codes.Code, elapsed time.Duration)
	// Local is told of each decision that the local policy made.
	Local func(method string, policy Policy)
	// Rejected is told of each buffered event that the service will never accept, and why.
	Rejected func(event Event, err error)
	// Buffer is told how many events wait, whenever that changes.
	Buffer func(pending int)
}

// BufferOptions set up the buffer. The zero value of each field is its default.
type BufferOptions struct {
	// MaxEvents bounds how many events wait: 10,000. Beyond it events are refused, none is dropped.
	MaxEvents int
	// BatchMax bounds how many are sent at once: 500, at most 1,000.
	BatchMax int
	// FlushInterval is how long events wait for others to be sent with: 100 ms.
	FlushInterval time.Duration
	// SpoolDir is a folder of this client alone that holds what was not yet acknowledged. Empty:
	// what waits is lost with the process.
	SpoolDir string
	// SpoolSync is how often the spool is synced to disk: 100 ms. Below 0: before each event is
	// accepted.
	SpoolSync time.Duration
	// SpoolMaxBytes bounds the spool: 64 MiB.
	SpoolMaxBytes int64
}

// Option sets up a client.
type Option func(*settings)

type settings struct {
	target   string
	timeout  time.Duration
	policy   Policy
	retry    bool
	tls      *tls.Config
	hooks    Hooks
	buffer   *BufferOptions
	dialling []grpc.DialOption
}

// WithTarget says where the sidecar is: "unix:///path", "unix:path" or "host:port".
func WithTarget(target string) Option {
	return func(s *settings) { s.target = target }
}

// WithTimeout bounds each logical call, its retries included. The caller's own context may end it
// sooner.
func WithTimeout(timeout time.Duration) Option {
	return func(s *settings) { s.timeout = timeout }
}

// WithOnAbsent says what is decided when the sidecar does not answer; [Closed] unless set.
func WithOnAbsent(policy Policy) Option {
	return func(s *settings) { s.policy = policy }
}

// WithoutRetry has each call tried once.
func WithoutRetry() Option {
	return func(s *settings) { s.retry = false }
}

// WithTLS encrypts the connection. See [LoadTLS].
func WithTLS(config *tls.Config) Option {
	return func(s *settings) { s.tls = config }
}

// WithHooks tells hooks what happens.
func WithHooks(hooks Hooks) Option {
	return func(s *settings) { s.hooks = hooks }
}

// WithBuffer gives the client a buffer, which records usage without waiting.
func WithBuffer(options BufferOptions) Option {
	return func(s *settings) { s.buffer = &options }
}

// WithDialOptions adds to how the connection is made, as interceptors and stats handlers.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dialling = append(s.dialling, options...) }
}

// CallOption changes one call.
type CallOption func(*callSettings)

type callSettings struct {
	timeout time.Duration
}

// WithCallTimeout bounds this call instead of the client's timeout.
func WithCallTimeout(timeout time.Duration) CallOption {
	return func(s *callSettings) { s.timeout = timeout }
}

// LoadTLS returns a configuration that trusts the authorities in caFile and, where certFile and
// keyFile are given, proves itself by them. They are read anew for each connection, so that a
// certificate may be renewed under a running client. serverName may be empty.
func LoadTLS(caFile, certFile, keyFile, serverName string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
	if caFile != "" {
		pem, err := os.ReadFile(caFile) //nolint:gosec // the caller's own file
		if err != nil {
			return nil, fmt.Errorf("tallygate: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tallygate: %s holds no certificate", caFile)
		}
	}
	if certFile == "" && keyFile == "" {
		return config, nil
	}
	if _, err := tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		return nil, fmt.Errorf("tallygate: %w", err)
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		return &pair, err
	}
	return config, nil
}
