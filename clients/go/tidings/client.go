// Package tidings is a client of Tidings, a service that long-running work reports to and that others ask or watch.
//
// A [Client] has the generated stubs of all services, with deadlines, retries and typed errors, and watches that
// resume by themselves.
package tidings

import (
	"crypto/tls"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

// What a Client does to every call that is not a watch: see New. Watches retry by their own rules.
const serviceConfig = `{
	"methodConfig": [{
		"name": [
			{"service": "tidings.v1.EventService"},
			{"service": "tidings.v1.TaskService"},
			{"service": "tidings.v1.MissionService"},
			{"service": "tidings.v1.RunService"}
		],
		"retryPolicy": {
			"maxAttempts": 4,
			"initialBackoff": "0.1s",
			"maxBackoff": "2s",
			"backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE"]
		}
	}, {
		"name": [
			{"service": "tidings.v1.EventService", "method": "WatchEvent"},
			{"service": "tidings.v1.RunService", "method": "WatchRun"}
		]
	}]
}`

// Client is a connection to Tidings. It is safe for use by many goroutines.
//
// Its services are the generated stubs. Their unary calls have a deadline of 10 seconds if the caller sets none,
// WaitTaskStatus its own timeout and 5 seconds. They are tried up to 4 times while the service is UNAVAILABLE;
// requests that change something and have no id that makes this safe are sent with a new one. They fail with an
// [*Error]. Call [Client.Watch] and [Client.WatchRun] rather than the streams of the stubs, which end when their
// connection does.
type Client struct {
	Events   tidingsv1.EventServiceClient
	Tasks    tidingsv1.TaskServiceClient
	Missions tidingsv1.MissionServiceClient
	Runs     tidingsv1.RunServiceClient

	conn        *grpc.ClientConn
	giveUpAfter time.Duration
}

// New makes a client of the service at target, an address such as "tidings.example:443" or any gRPC target. It
// does not connect yet.
//
// The connection is TLS with the system's certificate authorities, but plaintext to this machine: to localhost, a
// loopback address or a Unix socket. WithTLS and WithInsecure change that.
func New(target string, opts ...Option) (*Client, error) {
	var o options
	for _, option := range opts {
		option(&o)
	}
	conn, err := grpc.NewClient(target, o.dialOptions(target)...)
	if err != nil {
		return nil, err
	}
	return &Client{
		Events:      tidingsv1.NewEventServiceClient(conn),
		Tasks:       tidingsv1.NewTaskServiceClient(conn),
		Missions:    tidingsv1.NewMissionServiceClient(conn),
		Runs:        tidingsv1.NewRunServiceClient(conn),
		conn:        conn,
		giveUpAfter: o.giveUpAfter,
	}, nil
}

// Close ends the connection, and with it every call.
func (c *Client) Close() error {
	return c.conn.Close()
}

// Option is a setting of a Client.
type Option func(*options)

type options struct {
	apiKey      string
	tls         *tls.Config
	insecure    bool
	giveUpAfter time.Duration
	dial        []grpc.DialOption
}

// WithAPIKey sends the key with every call.
func WithAPIKey(key string) Option {
	return func(o *options) { o.apiKey = key }
}

// WithTLS connects with TLS by this configuration: other certificate authorities, or a certificate of the client.
func WithTLS(config *tls.Config) Option {
	return func(o *options) { o.tls = config }
}

// WithInsecure connects in plaintext to whatever the target is: keys and data can be read on the way.
func WithInsecure() Option {
	return func(o *options) { o.insecure = true }
}

// WithGiveUpAfter ends a watch with its last failure when it has had no message for so long, bookmarks included.
// Without it a watch tries until its context is done.
func WithGiveUpAfter(limit time.Duration) Option {
	return func(o *options) { o.giveUpAfter = limit }
}

// WithDialOptions adds options of gRPC. They come last, so they win.
func WithDialOptions(opts ...grpc.DialOption) Option {
	return func(o *options) { o.dial = append(o.dial, opts...) }
}

func (o *options) dialOptions(target string) []grpc.DialOption {
	transport, plaintext := o.transport(target)
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithChainUnaryInterceptor(call), // stays when the caller adds one
		// A connection is tried again as soon as a watch would be: gRPC's own waits grow to two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: maxBackoff},
			MinConnectTimeout: 10 * time.Second,
		}),
		// A watch that hears nothing opens a new stream; only a ping shows that the connection below it is dead.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
	if o.apiKey != "" {
		dial = append(dial, grpc.WithPerRPCCredentials(apiKey{key: o.apiKey, plaintext: plaintext}))
	}
	return append(dial, o.dial...)
}
