package tidings_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tidings-dev/tidings/clients/go/tidings"
	tidingsv1 "github.com/tidings-dev/tidings/clients/go/tidings/v1"
)

// keyed is a server on a port of its own that passes on the credential of every call.
func keyed(t *testing.T, opts ...grpc.ServerOption) (port string, credentials <-chan []string) {
	t.Helper()
	seen := make(chan []string, 1)
	server := answering(func(ctx context.Context, _ any) error {
		seen <- metadata.ValueFromIncomingContext(ctx, "authorization")
		return nil
	}, opts...)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	return port, seen
}

func get(t *testing.T, client *tidings.Client) error {
	t.Helper()
	_, err := client.Events.GetEvent(t.Context(), &tidingsv1.GetEventRequest{EventId: "a"})
	return err
}

func TestKeyOverPlaintext(t *testing.T) {
	port, seen := keyed(t)
	anywhere := through(func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+port)
	})
	tests := map[string]struct {
		target string
		opts   []tidings.Option
	}{
		"to this machine":         {target: "127.0.0.1:" + port},
		"to this machine by name": {target: "localhost:" + port},
		"to another, if asked to": {target: "passthrough:///tidings.example:443", opts: []tidings.Option{tidings.WithInsecure(), anywhere}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := get(t, dial(t, test.target, append(test.opts, tidings.WithAPIKey("secret"))...)); err != nil {
				t.Fatal(err)
			}
			if got := <-seen; !slices.Equal(got, []string{"Bearer secret"}) {
				t.Errorf("the service got %q, want the key", got)
			}
		})
	}
	t.Run("not to another", func(t *testing.T) {
		client := dial(t, "passthrough:///tidings.example:443", tidings.WithAPIKey("secret"), anywhere)
		if err := get(t, client); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "tls") {
			t.Errorf("the call ended with %v, want a failed TLS handshake", err)
		}
	})
}

// A name of this machine may be made to lead elsewhere.
func TestKeyIsNotSentWhereALocalNameLeads(t *testing.T) {
	elsewhere := listen(t, answering(func(context.Context, any) error {
		t.Error("the call arrived")
		return nil
	}))
	client := dial(t, "passthrough:///localhost:50051", tidings.WithAPIKey("secret"), through(elsewhere))
	if err := get(t, client); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "non-local") {
		t.Errorf("the call ended with %v, want a refused connection", err)
	}
}

func TestTLS(t *testing.T) {
	https := httptest.NewUnstartedServer(nil) // for its certificate
	https.StartTLS()
	defer https.Close()
	port, seen := keyed(t, grpc.Creds(credentials.NewServerTLSFromCert(&https.TLS.Certificates[0])))

	authorities := x509.NewCertPool()
	authorities.AddCert(https.Certificate())
	trusting := dial(t, "127.0.0.1:"+port, tidings.WithTLS(&tls.Config{RootCAs: authorities}), tidings.WithAPIKey("secret"))
	if err := get(t, trusting); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; !slices.Equal(got, []string{"Bearer secret"}) {
		t.Errorf("the service got %q, want the key", got)
	}

	stranger := dial(t, "127.0.0.1:"+port, tidings.WithTLS(&tls.Config{}))
	if err := get(t, stranger); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("the call ended with %v, want a refused certificate", err)
	}
}

func TestNewRefuses(t *testing.T) {
	tests := map[string]struct {
		target string
		opts   []tidings.Option
	}{
		"what is no target": {target: "%zz"},
		"a key with plaintext that is not WithInsecure": {"tidings.example:443", []tidings.Option{
			tidings.WithAPIKey("secret"),
			tidings.WithDialOptions(grpc.WithTransportCredentials(insecure.NewCredentials())),
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := tidings.New(test.target, test.opts...); err == nil {
				t.Error("there is a client")
			}
		})
	}
}
