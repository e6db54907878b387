package tidings

import (
	"context"
	"net"
	"net/netip"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/local"
)

// transport returns how the connection is secured, and whether keys may be sent over it in plaintext.
func (o *options) transport(target string) (credentials.TransportCredentials, bool) {
	switch {
	case o.insecure:
		return insecure.NewCredentials(), true
	case o.tls == nil && isLocal(target):
		// Refuses a peer that is not on this machine after all, whatever the name resolves to.
		return local.NewCredentials(), true
	default:
		return credentials.NewTLS(o.tls), false
	}
}

// isLocal reports whether a target names this machine.
func isLocal(target string) bool {
	if strings.HasPrefix(target, "unix:") || strings.HasPrefix(target, "unix-abstract:") {
		return true
	}
	address := target
	if _, endpoint, found := strings.Cut(target, ":///"); found {
		address = endpoint
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || (err == nil && ip.IsLoopback())
}

// apiKey is the credential of every call.
type apiKey struct {
	key       string
	plaintext bool
}

func (a apiKey) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + a.key}, nil
}

func (a apiKey) RequireTransportSecurity() bool {
	return !a.plaintext
}
